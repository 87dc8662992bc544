"""Articles as readers use them: the index kept up to date, votes, and searches that found nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from commerce.kernel.clock import DAY_MS, Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.optional import require_extra
from commerce.kernel.outages import log_failure
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.knowledge import store
from commerce.knowledge.article_index import (
    ANY_LINKS,
    CUSTOMERS,
    ArticleIndex,
    ArticleLinks,
    read_article,
    weigh_article,
)
from commerce.knowledge.errors import NoSuchArticle
from commerce.knowledge.model import (
    Audience,
    FoundArticle,
    ReadableArticle,
    SuggestionInput,
    Usage,
    Vote,
)
from commerce.text_search.model import Language
from commerce.text_search.terms import detect_language, normalise

_logger = logging.getLogger(__name__)
POLL_INTERVAL_S = 1.0
_POLLS_PER_USAGE = 30
_ARTICLES_PER_READ = 100
_MAX_BUFFERED_MISSES, _MISSES_PER_STATEMENT, _MAX_MISSES = 2_000, 500, 10_000
_MAX_MISS_CHARS = 80
_PERSONAL = re.compile(r"\S+@\S+|(?:\d[ -]?){5,}")
"""Addresses of e-mail, and numbers of the length of a phone or an order."""


class LiveArticles:
    """The published articles in this process's memory, at most about a second old.

    While Postgres is unavailable the last ones are used. `key` signs voters; the ids of another day are others.
    """

    def __init__(self, db: Database, clock: Clock, key: bytes) -> None:
        self._db = db
        self._clock = clock
        self._key = key
        self._index = ArticleIndex()
        self._index_lock = asyncio.Lock()
        self._change_no = -1
        self._misses: Counter[tuple[Language, str]] = Counter()

    async def refresh(self) -> None:
        """Read the articles that have changed.

        Raises `NotReady` if a library is missing, or the error of Postgres.
        """
        require_extra("search articles", "knowledge", "rjieba", "snowballstemmer", "opencc", "markdown_it", "nh3")
        async with self._db.connection() as connection:
            newest = await store.read_change(connection)
        if newest < self._change_no:  # another database, such as one restored from a backup
            self._index, self._change_no = ArticleIndex(), -1
        after = max(self._change_no, 0)
        while after < newest:
            async with self._db.snapshot() as connection:
                articles, after = await store.list_changed(connection, after, _ARTICLES_PER_READ)
            for article_id, article in articles:
                # Words are cut and indexed in a thread: requests are answered meanwhile.
                weights = {} if article is None else await asyncio.to_thread(weigh_article, article)
                async with self._index_lock:
                    await asyncio.to_thread(self._index.put_texts, article_id, weights)
                    self._index.put_article(article_id, article)
        self._change_no = after

    async def refresh_usage(self) -> None:
        """Read clicks and ratings."""
        async with self._db.connection() as connection:
            self._index.set_usage(await store.list_usage(connection))

    async def refresh_forever(self) -> None:
        """Read what has changed and store the searches that found nothing, once a second until cancelled."""
        polls = 0
        while True:
            try:
                await self.refresh()
                if polls % _POLLS_PER_USAGE == 0:
                    await self.refresh_usage()
                polls += 1
                await self.store_misses()
            except Exception as error:  # noqa: BLE001  # the next time may succeed
                log_failure(_logger, "cannot read the articles", error)
                if isinstance(error, NotReady):
                    return  # a library is missing, and will be until the next start
            await self._clock.sleep(POLL_INTERVAL_S)

    @property
    def index(self) -> ArticleIndex:
        """The articles in memory. Raises `NotReady` before they were read."""
        if self._change_no < 0:
            raise NotReady("the articles have not been read yet; repeat the request")
        return self._index

    def list_articles(
        self, after: str | None, size: int, language: Language, links: ArticleLinks, audiences: Sequence[Audience]
    ) -> Page[FoundArticle]:
        """List articles of a language by id. Raises `NotReady`."""
        matches = self.index.list_articles(after, size + 1, language, links, audiences)
        return to_page(matches, size, lambda article: article.article_id)

    async def search(
        self,
        query: str,
        language: Language | None,
        audiences: Sequence[Audience],
        count: int,
        links: ArticleLinks = ANY_LINKS,
    ) -> list[FoundArticle]:
        """Search articles, best first. What finds nothing is noted for editors. Raises `NotReady`.

        Searches run in a thread, one after the other: among many articles one takes milliseconds."""
        index = self.index
        async with self._index_lock:
            matches = await asyncio.to_thread(index.search, query, language, audiences, count, links)
        if not matches and links == ANY_LINKS:
            self.note_miss(query, language)
        return matches

    async def suggest(
        self, situation: SuggestionInput, audiences: Sequence[Audience], count: int
    ) -> list[FoundArticle]:
        """Suggest articles for a case or a conversation, best first, as `search`. Raises `NotReady`."""
        index = self.index
        async with self._index_lock:
            return await asyncio.to_thread(index.suggest, situation, audiences, count)

    async def read(self, article_id: str, language: Language | None, audiences: Sequence[Audience]) -> ReadableArticle:
        """Read a published article. Raises `NoSuchArticle` or `NotReady`."""
        article = self.index.find(article_id, audiences)
        if article is None:
            raise NoSuchArticle(f"there is no article {article_id!r}")
        return await asyncio.to_thread(read_article, article, language)  # long Markdown takes long

    async def vote(self, article_id: str, voter: str, vote: Vote, *, helped: bool | None = None) -> None:
        """Count a click or a rating by a customer or an address, once per article and day.

        Raises `NoSuchArticle` or `NotReady`.
        """
        if self.index.find(article_id, CUSTOMERS) is None:
            raise NoSuchArticle(f"there is no article {article_id!r}")
        now_ms = self._clock.now_ms()
        text = f"{now_ms // DAY_MS} {voter}"
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)[:16]
        added = Usage(int(helped is None), int(helped is True), int(helped is False))
        async with self._db.connection() as connection:
            await store.add_vote(connection, article_id, digest, vote, added, from_ms(now_ms))

    def note_miss(self, query: str, language: Language | None) -> None:
        """Note a search that found nothing, without what may be personal."""
        text = " ".join(_PERSONAL.sub("#", normalise(query)).split())[:_MAX_MISS_CHARS].strip()
        text = "".join(character for character in text if character.isprintable())
        key = language or detect_language(query), text
        if text and (key in self._misses or len(self._misses) < _MAX_BUFFERED_MISSES):
            self._misses[key] += 1

    async def store_misses(self) -> None:
        """Store some of the noted searches. Those that cannot be stored are kept."""
        batch = dict(islice(self._misses.items(), _MISSES_PER_STATEMENT))
        if batch:
            misses = [(language, text, count) for (language, text), count in batch.items()]
            async with self._db.connection() as connection:
                await store.add_misses(connection, misses, from_ms(self._clock.now_ms()), _MAX_MISSES)
            self._misses -= Counter(batch)
