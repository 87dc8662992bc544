"""One word for one concept: banned names and phrases, unique classes and files, plain docstrings.

`python -m tests.style.test_vocabulary [PATH...]` prints every offender in these files and folders, grouped by file.
`--list` prints all of them as lines of `vocabulary_offenders.txt`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.style.banned_words import (
    ARTICLES,
    FIELD_TERMS,
    NAME_PARTS,
    PHRASE,
    SANDBOX_NAME_PARTS,
    TEST_NAME_PARTS,
    WHOLE_NAMES,
)
from tests.style.repository import FILES, PACKAGES, ROOT, SOURCES, TESTS, existing, name, nodes, parse, read


class Offender(NamedTuple):
    """A place that breaks a rule. The detail stays the same when lines move."""

    path: str
    rule: str
    detail: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.rule}:{self.detail}"


PYTHON = [*SOURCES, *TESTS]
SCRIPTS = [file for file in FILES if file.suffix in (".sql", ".lua")]
GLOSSARY = ROOT / "docs" / "glossary.md"
EXEMPT = existing(
    "migrations/000[1-8]_*.sql",  # applied, so never edited
    "CHANGELOG.md",
    "docs/glossary.md",
    "docs/decisions/0028-vocabulary.md",
    "tests/ops/test_migration_0008.py",
    "tests/style/banned_words.py",
    "tests/style/test_vocabulary.py",
)
"""files that may hold banned words: they record or explain old names"""


def is_exempt(file: Path) -> bool:
    return any(fnmatchcase(name(file), pattern) for pattern in EXEMPT)


# Identifiers.

SANDBOX = existing("ops/sandbox/")


def defined_names(file: Path) -> Iterator[tuple[str, int]]:
    """Yield each name that a file defines or binds, with its line."""
    for node in nodes(file):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str()):
                yield str(node.asname), node.lineno
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
                yield str(node.name), node.lineno


def words_of(identifier: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", FIELD_TERMS.sub("", identifier))]


def is_banned(identifier: str, path: str = "") -> bool:
    if identifier.strip("_").lower() in WHOLE_NAMES:
        return True
    banned = NAME_PARTS | TEST_NAME_PARTS if identifier.startswith("test_") else NAME_PARTS
    if path.startswith(SANDBOX):
        banned |= SANDBOX_NAME_PARTS
    return not banned.isdisjoint(words_of(identifier))


def banned_identifiers() -> Iterator[Offender]:
    for file in PYTHON:
        for identifier, line in defined_names(file):
            if is_banned(identifier, name(file)):
                yield Offender(name(file), "identifier", identifier, line)
    for file in SCRIPTS:
        if not is_exempt(file):
            for line, text in enumerate(read(file).splitlines(), 1):
                blocks = re.findall(r"^-- name: (\w+)", text)
                for identifier in (*blocks, *re.findall(r"\b[a-z]+_\w+|\b\w+_\b", text)):
                    if is_banned(identifier):
                        yield Offender(name(file), "identifier", identifier, line)


def names_with_articles() -> Iterator[Offender]:
    for file in TESTS:
        for identifier, line in defined_names(file):
            if identifier.startswith("test_") and identifier.split("_")[1] in ARTICLES:
                yield Offender(name(file), "test-name", identifier, line)


# Classes and files.


def repeated_classes() -> Iterator[Offender]:
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    peers = ROOT / existing("loadtest/bench/peers")[0]  # systems of others, with words of their own
    for file in SOURCES:
        for node in parse(file).body:
            if isinstance(node, ast.ClassDef) and node.name[0] != "_" and peers not in file.parents:
                places[node.name].append((name(file), node.lineno))
    for class_name, definitions in places.items():
        for path, line in definitions if len(definitions) > 1 else ():
            yield Offender(path, "class", class_name, line)


CONVENTIONAL = {"__init__.py", "__main__.py", "model.py", "service.py", "store.py", "queries.sql", "errors.py"}
CONVENTIONAL |= {"metrics.py", "services.py"}
ADAPTERS = existing("commerce/payments/providers/*", "commerce/shipping/carriers/*")
ADAPTER_FILES = {"adapter.py", "wire.py", "messages.py", "settings.py", "status_map.py"}


def repeated_files() -> Iterator[Offender]:
    files = [file for file in FILES if file.relative_to(ROOT).parts[0] in PACKAGES and file.name not in CONVENTIONAL]
    adapters = {file for pattern in ADAPTERS for folder in ROOT.glob(pattern) for file in folder.glob("*.py")}
    files = [file for file in files if not (file in adapters and file.name in ADAPTER_FILES)]
    count = Counter((file.relative_to(ROOT).parts[0], file.name) for file in files)
    for file in files:
        if count[file.relative_to(ROOT).parts[0], file.name] > 1:
            yield Offender(name(file), "file", file.name, 1)


# Docstrings.

QUESTIONS = re.compile(r"\W*(What|Who|Whether|Where|How|It|Its|That|The same)\b", re.IGNORECASE)
MAX_FIRST_LINE = 100


def docstrings(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the docstrings of a module, its classes and functions, and of their attributes."""
    for node in nodes(file):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str() as text)):
                        yield text.strip(), statement.lineno


def docstring_starts() -> Iterator[Offender]:
    for file in PYTHON:
        for text, line in docstrings(file):
            if QUESTIONS.match(text):
                yield Offender(name(file), "docstring-start", " ".join(text.split()[:6]), line)


def docstring_lengths() -> Iterator[Offender]:
    for file in PYTHON:
        for text, line in docstrings(file):
            first, _, _ = text.partition("\n")
            if len(first) > MAX_FIRST_LINE:
                yield Offender(name(file), "docstring-length", " ".join(first.split()[:6]), line)


# Prose.

PHRASE_ALLOWED = {
    **dict.fromkeys(  # printed for customers
        ("parcel", "parcels"), existing("commerce/fulfilment/documents/*", "tests/fulfilment/test_documents.py")
    ),
    "buyer": existing("lua/*.lua"),  # as the Redis key is called
    # in the text that a key is derived from, and in the audience of drivers' links
    "van": existing("config/settings.py", "commerce/fleet/driver_links.py"),
}
"""phrases that certain files may hold"""


STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def prose(file: Path) -> Iterator[tuple[str, int]]:
    """Yield the texts of a file with their lines: of Python the comments and strings, of others all."""
    if file.suffix != ".py":
        yield re.sub(r"^\s*--", "", read(file), flags=re.MULTILINE), 1
        return
    comment, first, last = "", 0, 0
    for token in tokenize.generate_tokens(io.StringIO(read(file)).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != last + 1:
                yield comment, first
                comment, first = "", line
            comment, last = f"{comment}{token.string[1:]}\n", line
        elif token.type in STRINGS:
            yield token.string, token.start[0]
    yield comment, first


def banned_phrases() -> Iterator[Offender]:
    alerts = ROOT / existing("config/prometheus/alerts.yml")[0]
    for file in (*PYTHON, *SCRIPTS, *(file for file in FILES if file.suffix == ".md"), alerts):
        if is_exempt(file):
            continue
        for text, first in prose(file):
            for match in PHRASE.finditer(text):
                phrase = " ".join(match[0].lower().split())
                if not any(fnmatchcase(name(file), pattern) for pattern in PHRASE_ALLOWED.get(phrase, ())):
                    yield Offender(name(file), "phrase", phrase, first + text.count("\n", 0, match.start()))


# The glossary.


@cache
def code() -> str:
    """Return the text of all code, settings and schema, without tests and documents."""
    files = [file for file in FILES if file.relative_to(ROOT).parts[0] in (*PACKAGES, "migrations")]
    return "\n".join(read(file) for file in files if file.suffix in (".py", ".sql", ".lua", ".toml", ".yml"))


def glossary_terms() -> Iterator[Offender]:
    for line, text in enumerate(read(GLOSSARY).splitlines(), 1):
        for term in re.findall(r"`([^`]+)`", text):
            is_file = any(f"/{name(file)}".endswith(f"/{term}") for file in FILES)
            if not is_file and not re.search(rf"(?<!\w){re.escape(term)}(?!\w)", code()):
                yield Offender(name(GLOSSARY), "glossary", term, line)


def glossary_order() -> Iterator[Offender]:
    terms = re.findall(r"^- \*\*(.+?)\*\*", read(GLOSSARY), re.MULTILINE)
    for term, following in zip(terms, sorted(terms, key=str.lower), strict=True):
        if term != following:
            yield Offender(name(GLOSSARY), "glossary-order", term, 1)
            return


RULES: dict[str, Callable[[], Iterator[Offender]]] = {
    "class": repeated_classes,
    "docstring-length": docstring_lengths,
    "docstring-start": docstring_starts,
    "file": repeated_files,
    "glossary": glossary_terms,
    "glossary-order": glossary_order,
    "identifier": banned_identifiers,
    "phrase": banned_phrases,
    "test-name": names_with_articles,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_applied_to_repository_finds_no_offender(rule: str) -> None:
    assert [f"{offender.path}:{offender.line}: {offender.detail}" for offender in RULES[rule]()] == []


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        *[(identifier, True) for identifier in ("one", "_TOLD", "refused_why", "MAX_PARCELS", "ShippingDesk", "of")],
        *[(identifier, False) for identifier in ("only_one", "parcel_no", "at_least_two", "look_up", "warehouse")],
        *[("test_what_is_paid_is_not_closed", True), ("test_order_paid_late_is_reinstated", False)],
    ],
)
def test_identifier_of_each_kind_is_judged(identifier: str, expected: bool) -> None:
    assert is_banned(identifier) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It gives\n    the total.", ["gives"]),
        ("It gives up after a while.", []),
        ("The goods of an order go back.", ["goods of an order go back"]),
        ("A key stands for one order, and 'why' is told.", ["key stands", "'why'", "told"]),
        ("`parcel_no`, `notify_url` and a settlement", []),
        ("one call a batch, the limit a user; in all the time an order waits", ["one call a batch", "limit a user"]),
    ],
)
def test_phrase_in_text_is_found(text: str, expected: list[str]) -> None:
    assert [" ".join(match[0].split()) for match in PHRASE.finditer(text)] == expected


def main(arguments: list[str]) -> None:
    offenders = sorted((offender for find in RULES.values() for offender in find()), key=lambda o: (o.path, o.line))
    if arguments == ["--list"]:
        print(*sorted({str(offender) for offender in offenders}), sep="\n")
        return
    offenders = [offender for offender in offenders if offender.path.startswith(tuple(arguments) or "")]
    for path, group in groupby(offenders, key=attrgetter("path")):
        print(path, *(f"{offender.line:6} {offender.rule}: {offender.detail}" for offender in group), "", sep="\n")
    print(*(f"{count:6} {rule}" for rule, count in Counter(offender.rule for offender in offenders).items()), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
