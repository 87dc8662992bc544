"""Articles as files: `ID.zh.md` and `ID.en.md`.

Each is Markdown after a few lines of `key: value` between lines of `---`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.text_files import decode_text, read_file
from commerce.kernel.types import explain_mismatch
from commerce.knowledge.errors import UnreadableArticle
from commerce.knowledge.model import ArticleId, ArticleInput, ArticleTerms, ArticleText, VersionStep
from commerce.knowledge.service import Knowledge
from commerce.text_search.model import Language

_NAME = re.compile(r"(?P<article_id>[a-z0-9][a-z0-9-]{0,63})\.(?P<language>zh|en)\.md")
_REQUIRED, _LISTS = ("title", "audience", "owner", "review_by"), ("reasons", "skus", "categories")
_OPTIONAL = ("words", *_LISTS)
MAX_FILES = 20_000
ImportEffect = Literal["added", "changed", "unchanged", "refused"]


class ArticleFile(NamedTuple):
    """The content of a file."""

    article_id: ArticleId
    language: Language
    terms: ArticleTerms
    text: ArticleText


class ImportedFile(msgspec.Struct, frozen=True):
    """A file with what its import did, or in a dry run would do. `reason` is of a refused one."""

    file: str
    effect: ImportEffect
    reason: str = ""


def parse_article(name: str, content: str) -> ArticleFile:
    """Parse a file by its name and content. Raises `UnreadableArticle` with the line or key."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UnreadableArticle("its name is not ID.zh.md or ID.en.md, where ID has small letters, digits and hyphens")
    head, body = _split_head(content)
    values = _read_head(head)
    words = [word.strip() for word in re.split("[;\uff1b]", values.get("words", "")) if word.strip()]
    lists = {key: values[key].split() for key in _LISTS if key in values}
    terms = {key: values[key] for key in ("audience", "owner", "review_by")}
    try:
        return ArticleFile(
            match["article_id"],
            msgspec.convert(match["language"], Language),
            msgspec.convert({**terms, **lists}, ArticleTerms),
            msgspec.convert({"title": values["title"], "search_words": words, "body": body}, ArticleText),
        )
    except msgspec.ValidationError as error:
        raise UnreadableArticle(explain_mismatch(error)) from None


def _split_head(content: str) -> tuple[list[str], str]:
    lines = content.split("\n")
    if lines[0].strip() != "---":
        raise UnreadableArticle("line 1 is not `---`; begin with lines of `key: value` between two of these")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
    if end is None:
        raise UnreadableArticle("the second line of `---` is missing")
    return lines[1:end], "\n".join(lines[end + 1 :]).strip()


def _read_head(lines: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or key not in (*_REQUIRED, *_OPTIONAL):
            keys = ", ".join((*_REQUIRED, *_OPTIONAL))
            raise UnreadableArticle(f"line {number} is not `key: value` with one of the keys {keys}")
        if key in values:
            raise UnreadableArticle(f"line {number} repeats the key {key}")
        values[key] = value
    if missing := [key for key in _REQUIRED if key not in values]:
        raise UnreadableArticle(f"it lacks {', '.join(missing)}")
    return values


def read_folder(folder: Path) -> tuple[list[ArticleFile], list[ImportedFile]]:
    """Read all `*.md` files of a folder by name.

    Returns those that can be imported, and refused ones with reasons. The files of an article must
    have the same terms. Raises `UnreadableArticle` if there are no or too many files.
    """
    paths = sorted(folder.glob("*.md"))
    if not paths or len(paths) > MAX_FILES:
        raise UnreadableArticle(f"{folder} has {len(paths)} files named *.md; name a folder with 1 to {MAX_FILES}")
    files: list[ArticleFile] = []
    refused: list[ImportedFile] = []
    first_terms: dict[str, ArticleTerms] = {}
    for path in paths:
        try:
            file = parse_article(path.name, decode_text(read_file(path)))
            if first_terms.setdefault(file.article_id, file.terms) != file.terms:
                raise UnreadableArticle("audience, owner, review_by and codes differ from those of the other language")
        except Invalid as error:
            refused.append(ImportedFile(path.name, "refused", error.detail))
        else:
            files.append(file)
    return files, refused


async def import_articles(
    knowledge: Knowledge, files: Sequence[ArticleFile], author: str, *, is_dry_run: bool
) -> list[ImportedFile]:
    """Create or change articles, and submit each changed text for review. A repeat changes nothing.

    Returns what was done, or in a dry run what would be done as far as can be said. A refused article does not keep
    the others from their turn.
    """
    by_article: defaultdict[str, list[ArticleFile]] = defaultdict(list)
    for file in files:
        by_article[file.article_id].append(file)
    imported: list[ImportedFile] = []
    for article_id, parts in by_article.items():
        try:
            imported += await _import_article(knowledge, article_id, parts, author, is_dry_run=is_dry_run)
        except ProblemError as error:
            imported += [ImportedFile(_file_name(part), "refused", error.detail) for part in parts]
    return imported


async def _import_article(
    knowledge: Knowledge, article_id: str, files: Sequence[ArticleFile], author: str, *, is_dry_run: bool
) -> list[ImportedFile]:
    article = await knowledge.find(article_id)
    terms = files[0].terms
    is_changed = article is not None and article.terms != terms
    versions = article.versions if article else []
    drafts = {version.language: version.version for version in versions if version.status == "draft"}
    if not is_dry_run:
        await knowledge.put(article_id, ArticleInput(terms, article.version if article else None), author)
    imported = []
    for file in files:
        latest = await knowledge.find_latest_text(article_id, file.language)
        waiting = drafts.get(file.language) if latest == file.text else None
        is_new = latest != file.text
        if not is_dry_run and (is_new or waiting is not None):
            # A draft of the same text was left by an import that was interrupted, or by a person who forgot it.
            version = waiting or await knowledge.add_version(article_id, file.language, file.text, author)
            await knowledge.submit(article_id, VersionStep(file.language, version), author)
        effect: ImportEffect = "added" if latest is None else "unchanged"
        if latest is not None and (is_new or waiting is not None or is_changed):
            effect = "changed"
        imported.append(ImportedFile(_file_name(file), effect))
    return imported


def _file_name(file: ArticleFile) -> str:
    return f"{file.article_id}.{file.language}.md"
