"""Writes, reviews, publishes and retires articles.

Each change is seen by readers within about a second.
"""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.knowledge import store
from commerce.knowledge.errors import (
    ArticleStatusConflict,
    ArticleVersionConflict,
    NoSuchArticle,
    ReviewerIsAuthor,
    TooManyArticles,
)
from commerce.knowledge.model import (
    MAX_ARTICLES,
    RESERVED_IDS,
    Article,
    ArticleInput,
    ArticleStatus,
    ArticleText,
    ArticleVersion,
    MissedSearch,
    OverdueArticles,
    VersionStep,
)
from commerce.knowledge.rendering import render
from commerce.text_search.model import Language


class Knowledge:
    """The articles, over Postgres, as staff change them. Days end by the clocks of `timezone`."""

    def __init__(self, db: Database, clock: Clock, timezone: ZoneInfo) -> None:
        self._db = db
        self._clock = clock
        self._timezone = timezone

    async def list_articles(
        self, after: str | None, size: int, *, status: ArticleStatus | None = None, only_overdue: bool = False
    ) -> Page[Article]:
        """List articles by id.

        With `status` only those with such a version, with `only_overdue` only those past the day of their review.
        """
        before = self._today() if only_overdue else None
        wanted = "published" if only_overdue and status is None else status
        async with self._db.snapshot() as connection:
            articles = await store.list_articles(connection, after or "", size + 1, before, wanted)
        return to_page(articles, size, lambda article: article.article_id)

    async def get(self, article_id: str) -> Article:
        """Read an article with all its versions. Raises `NoSuchArticle`."""
        article = await self.find(article_id)
        if article is None:
            raise _no_article(article_id)
        return article

    async def find(self, article_id: str) -> Article | None:
        """Read an article with all its versions, None if there is none."""
        async with self._db.snapshot() as connection:
            return await store.get_article(connection, article_id)

    async def get_version(self, article_id: str, language: Language, version: int) -> ArticleVersion:
        """Read a version with its text as Markdown and HTML. Raises `NoSuchArticle`."""
        async with self._db.connection() as connection:
            stored = await store.get_version(connection, article_id, language, version)
        if stored is None:
            raise NoSuchArticle(f"{article_id} has no version {version} in {language}")
        return ArticleVersion(article_id, *stored, render(stored[1].body))

    async def find_latest_text(self, article_id: str, language: Language) -> ArticleText | None:
        """Read the text that waits to be published, else the published one."""
        async with self._db.connection() as connection:
            return await store.find_latest_text(connection, article_id, language)

    async def put(self, article_id: str, new: ArticleInput, actor: str) -> Article:
        """Create an article without texts, or change its terms. A repeat changes nothing.

        Raises `NoSuchArticle` if the version is given and the article does not exist, `ArticleVersionConflict` if it
        has another version, `ArticleStatusConflict` if its audience cannot change, `TooManyArticles`.
        """
        if article_id in RESERVED_IDS:
            raise Invalid(f"{article_id!r} is part of another path; choose another name")
        async with self._db.transaction() as connection:
            await store.lock_new_article(connection, article_id)
            locked = await store.lock_article(connection, article_id)
            if locked is None:
                if new.version is not None:
                    raise _no_article(article_id)
                if await store.count_articles(connection) >= MAX_ARTICLES:
                    raise TooManyArticles(f"cannot create {article_id}: there are {MAX_ARTICLES} articles")
                await store.insert_article(connection, article_id, new.terms, actor, self._now())
            elif locked.terms != new.terms:
                if new.version != locked.version:
                    raise ArticleVersionConflict(
                        f"{article_id} has version {locked.version}; read it and repeat the change",
                        version=locked.version,
                    )
                if new.terms.audience != locked.terms.audience and await store.has_published(connection, article_id):
                    raise ArticleStatusConflict(
                        f"cannot change the audience of {article_id}: it has published versions, which a second person "
                        "has approved for the other readers; retire them first"
                    )
                await store.update_terms(connection, article_id, new.terms, actor, self._now())
        return await self.get(article_id)

    async def add_version(self, article_id: str, language: Language, text: ArticleText, actor: str) -> int:
        """Add a draft, whose author is `actor`, and return its number.

        One that is not published yet is retired. Raises `NoSuchArticle`.
        """
        now = self._now()
        async with self._db.transaction() as connection:
            await _lock(connection, article_id)
            await store.set_retired(connection, article_id, language, None, ("draft", "in_review"), actor, now)
            version = await store.insert_version(connection, article_id, language, text, actor, now)
            await store.touch_article(connection, article_id, actor, now)
        return version

    async def submit(self, article_id: str, step: VersionStep, actor: str) -> None:
        """Let a draft wait for a reviewer. A repeat changes nothing.

        Raises `NoSuchArticle` or `ArticleStatusConflict`.
        """
        async with self._db.transaction() as connection:
            status, _ = await _lock_version(connection, article_id, step)
            if status == "in_review":
                return
            _check_status(article_id, step, status, "draft")
            await store.set_in_review(connection, article_id, step.language, step.version)
            await store.touch_article(connection, article_id, actor, self._now())

    async def publish(self, article_id: str, step: VersionStep, actor: str) -> None:
        """Publish a version in review in the place of the published one. A repeat changes nothing.

        Raises `ReviewerIsAuthor`, `NoSuchArticle` or `ArticleStatusConflict`.
        """
        now = self._now()
        async with self._db.transaction() as connection:
            status, author = await _lock_version(connection, article_id, step)
            if status == "published":
                return
            _check_status(article_id, step, status, "in_review")
            if _person(author) == _person(actor):
                raise ReviewerIsAuthor(
                    f"cannot publish version {step.version} of {article_id} in {step.language}: you have written it; "
                    "ask another person"
                )
            await store.set_retired(connection, article_id, step.language, None, ("published",), actor, now)
            await store.set_published(connection, article_id, step.language, step.version, actor, now)
            await store.touch_article(connection, article_id, actor, now)

    async def retire(self, article_id: str, step: VersionStep, actor: str) -> None:
        """Retire a version of any status. A repeat changes nothing. Raises `NoSuchArticle`."""
        async with self._db.transaction() as connection:
            status, _ = await _lock_version(connection, article_id, step)
            if status != "retired":
                now = self._now()
                await store.set_retired(connection, article_id, step.language, step.version, (status,), actor, now)
                await store.touch_article(connection, article_id, actor, now)

    async def measure_overdue(self) -> OverdueArticles:
        """Count published articles past the day of their review."""
        async with self._db.connection() as connection:
            return await store.measure_overdue(connection, self._today())

    async def list_misses(self, language: Language | None, count: int) -> list[MissedSearch]:
        """List searches that found nothing, the most frequent first."""
        async with self._db.connection() as connection:
            return await store.list_misses(connection, language, count)

    async def delete_miss(self, language: Language, query: str) -> None:
        """Delete a search from the list, when an article answers it now."""
        async with self._db.connection() as connection:
            await store.delete_miss(connection, language, query)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    def _today(self) -> date:
        return self._now().astimezone(self._timezone).date()


def _no_article(article_id: str) -> NoSuchArticle:
    return NoSuchArticle(f"there is no article {article_id!r}")


async def _lock(connection: Connection, article_id: str) -> None:
    if await store.lock_article(connection, article_id) is None:
        raise _no_article(article_id)


async def _lock_version(connection: Connection, article_id: str, step: VersionStep) -> tuple[ArticleStatus, str]:
    """Lock the article and return status and author of a version. Raises `NoSuchArticle`."""
    await _lock(connection, article_id)
    status_and_author = await store.get_status(connection, article_id, step.language, step.version)
    if status_and_author is None:
        raise NoSuchArticle(f"{article_id} has no version {step.version} in {step.language}")
    return status_and_author


def _check_status(article_id: str, step: VersionStep, status: ArticleStatus, needed: ArticleStatus) -> None:
    if status != needed:
        raise ArticleStatusConflict(
            f"version {step.version} of {article_id} in {step.language} is {status}, not {needed}"
        )


def _person(actor: str) -> str:
    """Return the name of an actor: the same person may use the commands and the API."""
    return actor.removeprefix("staff ").removeprefix("cli ")
