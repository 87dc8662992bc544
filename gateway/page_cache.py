"""Public pages as they were last encoded, by request target.

A page is loaded again when somebody asks for it and it is no longer new: before it is too old to be used, in the
background; afterwards all who ask wait for one load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from commerce.kernel.clock import Clock
from commerce.kernel.tasks import cancel_and_wait
from gateway.cached_content import Content
from gateway.metrics_buffer import MetricsBuffer
from gateway.read_responses import PendingRead, ReadResponder
from gateway.refreshing_cache import MAX_AGE_S, REFRESH_AGE_S
from gateway.sale_snapshots import SaleSnapshots

_logger = logging.getLogger(__name__)
_MIN_USE_S = 0.05
"""use of content that is too old already, because a database does not answer"""
_MAX_BYTES, _OVERHEAD_BYTES = 33_554_432, 1_000
_NEVER, _ALWAYS = float("-inf"), float("inf")
LoadContent = Callable[[], Awaitable[Content]]


class CachedPage:
    """A page: what clients get, until when, and those who wait for a load.

    `follows_sales` says that it is loaded again when the snapshots of the sales change.
    """

    __slots__ = (
        *("content", "follows_sales", "load", "loading", "refresh_at"),
        *("route", "size", "usable_until", "version", "waiting"),
    )

    def __init__(self, route: str, load: LoadContent, *, follows_sales: bool) -> None:
        self.route = route
        self.load = load
        self.follows_sales = follows_sales
        self.content = Content(b"", "", "")
        self.size = 0
        self.refresh_at = self.usable_until = _NEVER
        self.version = -1
        """version of the snapshots when it was loaded"""
        self.loading: asyncio.Task[None] | None = None
        self.waiting: list[PendingRead] = []


class PageCache:
    """Pages up to a number of bytes; those that were not loaded for longest go first."""

    def __init__(
        self, snapshots: SaleSnapshots, responder: ReadResponder, metrics_buffer: MetricsBuffer, clock: Clock
    ) -> None:
        self._snapshots = snapshots
        self._responder = responder
        self._metrics_buffer = metrics_buffer
        self._clock = clock
        self._pages: dict[bytes, CachedPage] = {}
        self._new_pages: dict[bytes, CachedPage] = {}
        """pages during their first load"""
        self.bytes = 0
        """memory of all pages, roughly"""

    async def close(self) -> None:
        """Stop all loads; nobody may ask any more."""
        for page in [*self._pages.values(), *self._new_pages.values()]:
            if page.loading is not None:
                await cancel_and_wait(page.loading)

    def find(self, target: bytes) -> CachedPage | None:
        return self._pages.get(target) or self._new_pages.get(target)

    def add(self, target: bytes, page: CachedPage) -> CachedPage:
        """Add a page, to be loaded for the next `answer`."""
        self._new_pages[target] = page
        return page

    def answer(self, target: bytes, page: CachedPage, read: PendingRead) -> None:
        """Answer a read with the page: at once if it may be used, else after a load."""
        now = self._clock.monotonic()
        if now < page.usable_until and (page.version == self._snapshots.version or not page.follows_sales):
            self._metrics_buffer.count_cached_reads("page", 1, 0)
            if now >= page.refresh_at and page.loading is None:
                page.loading = asyncio.create_task(self._load(target, page))
            self._responder.send_content(read, page.content)
        else:
            self._metrics_buffer.count_cached_reads("page", 0, 1)
            page.waiting.append(read)
            if page.loading is None:
                page.loading = asyncio.create_task(self._load(target, page))

    async def _load(self, target: bytes, page: CachedPage) -> None:
        version, error = self._snapshots.version, None
        try:
            content = await page.load()
        except Exception as failure:  # noqa: BLE001  # those who wait for the page get the problem
            error = failure
        page.loading = None
        if self._new_pages.get(target) is page:
            del self._new_pages[target]
        if (kept := self._pages.pop(target, None)) is not None:
            self.bytes -= kept.size
        if error is None:
            page.content, page.version = content, version
            page.refresh_at, page.usable_until = self._use_of(content)
            self._keep(target, page)
        reads, page.waiting = page.waiting, []
        for read in reads:
            try:
                if error is None:
                    self._responder.send_content(read, page.content)
                else:
                    self._responder.send_failure(read, error)
            except Exception:
                _logger.exception("cannot answer a read")

    def _use_of(self, content: Content) -> tuple[float, float]:
        """Return from when content is to be loaded again, and until when it may be used."""
        if content.read_at is None:
            return _ALWAYS, _ALWAYS
        return (
            content.read_at + REFRESH_AGE_S,
            max(content.read_at + MAX_AGE_S, self._clock.monotonic() + _MIN_USE_S),
        )

    def _keep(self, target: bytes, page: CachedPage) -> None:
        page.size = len(page.content.body) + _OVERHEAD_BYTES
        self._pages[target] = page
        self.bytes += page.size
        while self.bytes > _MAX_BYTES:
            self.bytes -= self._pages.pop(next(iter(self._pages))).size
