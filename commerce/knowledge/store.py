"""Rows of articles and their versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.knowledge.model import (
    Article,
    ArticleStatus,
    ArticleTerms,
    ArticleText,
    MissedSearch,
    OverdueArticles,
    PublishedArticle,
    PublishedText,
    Usage,
    VersionSummary,
)
from commerce.text_search.model import Language

_TERMS = ArticleTerms.__struct_fields__
queries = load_queries(
    __package__,
    articles=("article_id", "version", *_TERMS, "change_no", "changed_at", "changed_by"),
    article_versions=VersionSummary.__struct_fields__,
    missed_searches=MissedSearch.__struct_fields__,
)


class LockedArticle(NamedTuple):
    """An article that nobody else changes until the transaction ends."""

    version: int
    terms: ArticleTerms


async def lock_article(connection: Connection, article_id: str) -> LockedArticle | None:
    row = await connection.fetchrow(queries.lock_article, article_id)
    return None if row is None else LockedArticle(row["version"], _terms(row))


async def lock_new_article(connection: Connection, article_id: str) -> None:
    """Keep others from creating this article until the transaction ends."""
    await connection.execute(queries.lock_new_article, article_id)


async def count_articles(connection: Connection) -> int:
    return int(await connection.fetchval(queries.count_articles))


async def insert_article(
    connection: Connection, article_id: str, terms: ArticleTerms, actor: str, now: datetime
) -> None:
    change_no = await connection.fetchval(queries.next_change)
    await connection.execute(queries.insert_article, article_id, *_columns(terms), change_no, now, actor)


async def update_terms(connection: Connection, article_id: str, terms: ArticleTerms, actor: str, now: datetime) -> None:
    change_no = await connection.fetchval(queries.next_change)
    await connection.execute(queries.update_terms, article_id, *_columns(terms), change_no, now, actor)


async def touch_article(connection: Connection, article_id: str, actor: str, now: datetime) -> None:
    """Record that versions of an article have changed."""
    change_no = await connection.fetchval(queries.next_change)
    await connection.execute(queries.touch_article, article_id, change_no, now, actor)


async def insert_version(
    connection: Connection, article_id: str, language: Language, text: ArticleText, author: str, now: datetime
) -> int:
    """Store a draft. Returns its number."""
    return int(
        await connection.fetchval(
            queries.insert_version, article_id, language, text.title, text.search_words, text.body, author, now
        )
    )


async def get_status(
    connection: Connection, article_id: str, language: Language, version: int
) -> tuple[ArticleStatus, str] | None:
    """Read the status of a version and its author."""
    row = await connection.fetchrow(queries.get_status, article_id, language, version)
    return None if row is None else (row["status"], row["author"])


async def set_in_review(connection: Connection, article_id: str, language: Language, version: int) -> None:
    await connection.execute(queries.set_in_review, article_id, language, version)


async def set_published(
    connection: Connection, article_id: str, language: Language, version: int, reviewer: str, now: datetime
) -> None:
    await connection.execute(queries.set_published, article_id, language, version, reviewer, now)


async def set_retired(
    connection: Connection,
    article_id: str,
    language: Language,
    version: int | None,
    statuses: Sequence[ArticleStatus],
    actor: str,
    now: datetime,
) -> None:
    """Retire a version, or with None all that have one of the statuses."""
    await connection.execute(queries.set_retired, article_id, language, version, statuses, actor, now)


async def has_published(connection: Connection, article_id: str) -> bool:
    return bool(await connection.fetchval(queries.has_published, article_id))


async def get_article(connection: Connection, article_id: str) -> Article | None:
    """Read an article with all its versions."""
    row = await connection.fetchrow(queries.get_article, article_id)
    if row is None:
        return None
    return _article(row, (await _list_versions(connection, [article_id], with_retired=True))[article_id])


async def list_articles(
    connection: Connection, after: str, count: int, review_before: date | None, status: ArticleStatus | None
) -> list[Article]:
    """List articles by id, with their versions that are not retired."""
    rows = await connection.fetch(queries.list_articles, after, count, review_before, status)
    versions = await _list_versions(connection, [row["article_id"] for row in rows], with_retired=False)
    return [_article(row, versions[row["article_id"]]) for row in rows]


async def _list_versions(
    connection: Connection, article_ids: Sequence[str], *, with_retired: bool
) -> defaultdict[str, list[VersionSummary]]:
    versions: defaultdict[str, list[VersionSummary]] = defaultdict(list)
    for article_id, *values in await connection.fetch(queries.list_versions, article_ids, with_retired):
        versions[article_id].append(_summary(values))
    return versions


async def get_version(
    connection: Connection, article_id: str, language: Language, version: int
) -> tuple[VersionSummary, ArticleText] | None:
    row = await connection.fetchrow(queries.get_version, article_id, language, version)
    return None if row is None else (_summary(tuple(row)[: len(VersionSummary.__struct_fields__)]), _text(row))


async def find_latest_text(connection: Connection, article_id: str, language: Language) -> ArticleText | None:
    """Read the text on its way to be published, else the published one, None if there is neither."""
    row = await connection.fetchrow(queries.latest_text, article_id, language)
    return None if row is None else _text(row)


async def read_change(connection: Connection) -> int:
    """Read the number of the last change of any article."""
    return int(await connection.fetchval(queries.read_change))


async def list_changed(
    connection: Connection, after: int, count: int
) -> tuple[list[tuple[str, PublishedArticle | None]], int]:
    """List articles that have changed after a change, None for those without a published version.

    Returns also the number of the last change among them. Call inside a snapshot."""
    rows = await connection.fetch(queries.list_changed, after, count)
    texts: defaultdict[str, dict[Language, PublishedText]] = defaultdict(dict)
    for row in await connection.fetch(queries.list_published, [row["article_id"] for row in rows]):
        published = PublishedText(row["version"], row["published_at"], _text(row))
        texts[row["article_id"]][row["language"]] = published
    articles: list[tuple[str, PublishedArticle | None]] = []
    for row in rows:
        article_id = row["article_id"]
        published_texts = texts.get(article_id)
        article = None if published_texts is None else PublishedArticle(article_id, _terms(row), published_texts)
        articles.append((article_id, article))
    return articles, rows[-1]["change_no"] if rows else after


async def measure_overdue(connection: Connection, today: date) -> OverdueArticles:
    row = await connection.fetchrow(queries.measure_overdue, today)
    assert row is not None
    return OverdueArticles(*row)


async def add_vote(
    connection: Connection, article_id: str, voter: bytes, vote: str, added: Usage, now: datetime
) -> None:
    """Add a vote, unless this voter has cast one of its kind on this article today."""
    counts = added.clicks, added.helped, added.not_helped
    await connection.execute(queries.add_vote, article_id, voter, now, vote, *counts)


async def list_usage(connection: Connection) -> dict[str, Usage]:
    """List clicks and ratings of all articles that have any."""
    return {article_id: Usage(*counts) for article_id, *counts in await connection.fetch(queries.list_usage)}


async def add_misses(
    connection: Connection, misses: Iterable[tuple[Language, str, int]], now: datetime, max_rows: int
) -> None:
    """Count searches that found nothing, by language and query."""
    languages, texts, counts = zip(*misses, strict=True)
    await connection.execute(queries.add_misses, languages, texts, counts, now, max_rows)


async def list_misses(connection: Connection, language: Language | None, count: int) -> list[MissedSearch]:
    """List searches that found nothing, the most frequent first."""
    return [MissedSearch(**row) for row in await connection.fetch(queries.list_misses, language, count)]


async def delete_miss(connection: Connection, language: Language, query: str) -> None:
    await connection.execute(queries.delete_miss, language, query)


def _columns(terms: ArticleTerms) -> tuple[Any, ...]:
    return tuple(getattr(terms, name) for name in _TERMS)


def _terms(row: Any) -> ArticleTerms:
    return ArticleTerms(**{name: row[name] for name in _TERMS})


def _text(row: Any) -> ArticleText:
    return ArticleText(title=row["title"], search_words=row["search_words"], body=row["body"])


def _summary(values: Iterable[Any]) -> VersionSummary:
    return VersionSummary(**dict(zip(VersionSummary.__struct_fields__, values, strict=True)))


def _article(row: Any, versions: list[VersionSummary]) -> Article:
    return Article(
        article_id=row["article_id"],
        version=row["version"],
        terms=_terms(row),
        changed_at=row["changed_at"],
        changed_by=row["changed_by"],
        clicks=row["clicks"],
        helped=row["helped"],
        not_helped=row["not_helped"],
        versions=versions,
    )
