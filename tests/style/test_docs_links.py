"""Links, anchors, files and names in the documentation lead somewhere."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from tests.style.repository import DOCUMENTS, FILES, PACKAGES, ROOT, each_of, name, nodes, read

FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
BLOCK_START = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.)\s)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s)>]+)>?[^)]*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
PATH = re.compile(r"[\w*][\w.*@-]*(?:/[\w.*@-]+)*/?")
FILE = re.compile(r"(?<![\w./*{-])[\w*]+(?:/[\w*.-]+)*\.(?:py|sql|lua)\b")
SUFFIXES = (".py", ".sql", ".lua", ".md", ".yml")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?![\w/(])")
IDENTIFIER = re.compile(
    r"(?<![\w/-])(?:[A-Z][a-z]+[A-Z]\w*|[a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Z]+(?:_[A-Z0-9]+)+)(?![\w-])"
)
FOREIGN = {
    "EventSource",  # a class of browsers
    "SSL_CERT_FILE",  # a variable of OpenSSL
    "aof_delayed_fsync",  # a counter of Redis
    "epoll_pwait",  # a system call
    "full_page_writes",  # a setting of Postgres
    "idle_transaction_timeout",  # a setting of PgBouncer
    "ignore_startup_parameters",  # a setting of PgBouncer
    "pg_hba",  # a file of Postgres
    "query_start",  # a column of Postgres
    "query_timeout",  # a setting of PgBouncer
    "server_reset_query",  # a setting of PgBouncer
}
PAST = ("CHANGELOG.md", "docs/glossary.md", "docs/decisions/0028-vocabulary.md")
PRESENT = [document for document in DOCUMENTS if name(document) not in PAST]
"""documents of the present state; `test_vocabulary.py` checks the glossary"""
PATHS = {part for file in FILES for part in (name(file), *map(str, PurePosixPath(name(file)).parents))}
"""every file and folder of the repository"""


def slug(heading: str) -> str:
    """Return the anchor of a heading on GitHub."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
    text = re.sub(r"(?<!\w)([*_]{1,3})(\S|\S.*?\S)\1(?!\w)", r"\2", text)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@cache
def anchors(document: Path) -> frozenset[str]:
    """Return all anchors of a document. A heading that occurs again gets a number: `watch-1`."""
    text = FENCE.sub("", read(document))
    used = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in HEADING.findall(text):
        anchor = base = slug(heading)
        number = 0
        while anchor in used:
            number += 1
            anchor = f"{base}-{number}"
        used.add(anchor)
    return frozenset(used)


def links(document: Path) -> list[str]:
    """Return the targets of all links within the repository."""
    text = CODE.sub("code", FENCE.sub("", read(document)))
    targets = [*LINK.findall(text), *REFERENCE.findall(text)]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def code_spans(document: Path) -> list[str]:
    """Return the texts between backticks, without fenced blocks. A span may continue on the next line."""
    blocks = BLOCK_START.split(FENCE.sub("\n\n", read(document)))
    return [" ".join(text.split()) for block in blocks for _, text in CODE.findall(block)]


def exists(path: str) -> bool:
    """Check whether a path, or the end of a path, with or without wildcards, is in the repository."""
    return any(fnmatchcase(present, path) or fnmatchcase(present, f"*/{path}") for present in PATHS)


def must_exist(path: str) -> bool:
    """Check whether a text names a file or folder of the repository: by its ending or by its first folder."""
    first, slash, _ = path.partition("/")
    is_below_top = slash == "/" and first in PATHS
    return PATH.fullmatch(path) is not None and "NNNN" not in path and (path.endswith(SUFFIXES) or is_below_top)


@cache
def definitions(path: str) -> frozenset[str]:
    """Return the names that a Python file defines or assigns, methods and attributes included."""
    names = set()
    for node in nodes(ROOT / path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return frozenset(names)


def module_exists(dotted: str) -> bool:
    """Check whether a dotted name is a module or package of the repository, or a name within one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in PATHS:
                return count == len(parts) or parts[count] in definitions(file)
    return False


@cache
def words_of_sources() -> frozenset[str]:
    """Return every word of every file that is no document."""
    words: set[str] = set()
    for file in FILES:
        if file not in DOCUMENTS and file.suffix not in (".png", ".svg", ".ttf", ".txt"):
            words.update(re.findall(r"\w+", file.read_text(encoding="utf-8", errors="ignore")))
    return frozenset(words)


@each_of(DOCUMENTS)
def test_relative_link_leads_to_existing_file_and_heading(document: Path) -> None:
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_of(PRESENT)
def test_file_named_in_document_exists(document: Path) -> None:
    spans = [span.partition("::")[0] for span in code_spans(document)]
    fenced = [path for block in FENCE.finditer(read(document)) for path in FILE.findall(block[0])]
    named = {path.rstrip("/") for path in (*filter(must_exist, spans), *fenced)}
    assert sorted(path for path in named if not exists(path)) == []


@each_of(PRESENT)
def test_definition_named_with_its_file_exists(document: Path) -> None:
    missing = []
    for span in code_spans(document):
        path, separator, dotted = span.partition("::")
        if separator and path.endswith(".py") and path in PATHS and not {*dotted.split(".")} <= definitions(path):
            missing.append(span)
    assert missing == []


@each_of(PRESENT)
def test_module_named_in_document_exists(document: Path) -> None:
    assert sorted(dotted for dotted in {*MODULE.findall(read(document))} if not module_exists(dotted)) == []


@each_of(PRESENT)
def test_identifier_named_in_document_occurs_in_sources(document: Path) -> None:
    named = {identifier for span in code_spans(document) for identifier in IDENTIFIER.findall(span)}
    assert sorted(named - words_of_sources() - FOREIGN) == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Rebuilding a sale in Redis", "rebuilding-a-sale-in-redis"),
        ("0004. `floodgate up` brings its own servers", "0004-floodgate-up-brings-its-own-servers"),
        ("`order_lines` has no *foreign* key", "order_lines-has-no-foreign-key"),
        ("A carrier's day: 24 hours, [really](x.md)", "a-carriers-day-24-hours-really"),
    ],
)
def test_slug_of_heading_is_githubs_anchor(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor
