"""Reads that are answered without aiohttp: public pages from memory, and an order's own state in batches.

`take` takes only GETs in their common form; aiohttp answers all others, from the same memory. A page is kept as it was
encoded. It is loaded again when somebody asks for it and it is no longer new: before it is too old, in the background.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.outages import DATABASES_UNAVAILABLE
from commerce.kernel.postgres import safe_error_text
from commerce.kernel.tasks import cancel_and_wait
from commerce.orders.service import Orders
from gateway import problems
from gateway.auth import Authenticator
from gateway.cached_content import Content, has_content
from gateway.fast_path_responses import ResponseHeads
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_reads import OrderReads, StoredOrder, encode_order
from gateway.public_pages import PublicPages
from gateway.refreshing_cache import MAX_AGE_S, REFRESH_AGE_S
from gateway.request_head import RequestHead
from gateway.sale_snapshots import SaleSnapshots

_logger = logging.getLogger(__name__)
_SALE = re.compile(rb"/v1/sales/([a-z0-9][a-z0-9-]{0,63})(/offers(?:\?cursor=([A-Za-z0-9][A-Za-z0-9._-]{0,63}))?)?")
_PRODUCT = re.compile(rb"/v1/products/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_ORDER = re.compile(rb"/v1/orders/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_ORDER_ROUTE = "/v1/orders/{order_id}"
_MIN_USE_S = 0.05
"""use of a page that is too old already, because a database does not answer"""
_MAX_PAGE_BYTES, _PAGE_OVERHEAD_BYTES = 33_554_432, 1_000


@dataclass(frozen=True, slots=True)
class _Read:
    """A request that waits for its answer."""

    route: str
    client_tags: bytes | None
    request_id: str
    send: Callable[[bytes], None]
    started: float


class _CachedPage:
    """A page as it was last encoded, and those who wait until it is loaded again."""

    __slots__ = ("content", "load", "loading", "refresh_at", "route", "usable_until", "version", "waiting")

    def __init__(self, route: str, load: Callable[[], Awaitable[Content]]) -> None:
        self.route = route
        self.load = load
        self.content = Content(b"", "", "")
        self.refresh_at = self.usable_until = float("-inf")
        self.version: int | None = None
        """version of the snapshots that it follows"""
        self.loading: asyncio.Task[None] | None = None
        self.waiting: list[_Read] = []


class FastReads:
    """Answers GETs in the common form whose answers are in memory, or need one query for many of them."""

    def __init__(
        self,
        auth: Authenticator,
        snapshots: SaleSnapshots,
        pages: PublicPages,
        orders: Orders,
        order_reads: OrderReads,
        heads: ResponseHeads,
        metrics_buffer: MetricsBuffer,
        clock: Clock,
        *,
        page_items: int,
        stopping: asyncio.Event,
    ) -> None:
        self._auth = auth
        self._snapshots = snapshots
        self._public_pages = pages
        self._orders = orders
        self._order_reads = order_reads
        self._heads = heads
        self._metrics_buffer = metrics_buffer
        self._clock = clock
        self._page_items = page_items
        self._stopping = stopping
        self._pages: dict[bytes, _CachedPage] = {}
        self._new_pages: dict[bytes, _CachedPage] = {}
        """pages that are loaded for the first time"""
        self._page_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def page_bytes(self) -> int:
        """Memory that the pages take, roughly."""
        return self._page_bytes

    async def close(self) -> None:
        """Stop all loads; nobody may ask any more."""
        for task in list(self._tasks):
            await cancel_and_wait(task)

    def take(self, target: bytes, head: RequestHead, request_id: str, send: Callable[[bytes], None]) -> bool:
        """Answer a GET in the common form: call `send` once, now or later.

        `target` is the path with the query. Returns False if aiohttp is to answer, and then never calls `send`.
        """
        if self._stopping.is_set():
            return False
        started = perf_counter()
        client_tags = head.values[head.layout.if_none_match]
        page = self._pages.get(target) or self._new_pages.get(target)
        if page is None:
            if order := _ORDER.fullmatch(target):
                read = _Read(_ORDER_ROUTE, client_tags, request_id, send, started)
                self._read_order(order[1].decode(), head.values[head.layout.authorization], read)
                return True
            page = self._open_page(target)
            if page is None:
                return False
        read = _Read(page.route, client_tags, request_id, send, started)
        now = self._clock.monotonic()
        if now < page.usable_until and (page.version is None or page.version == self._snapshots.version):
            if now >= page.refresh_at and page.loading is None:
                self._load_in_task(target, page)
            self._metrics_buffer.count_cached_reads("page", 1, 0)
            self._send_content(read, page.content)
        else:
            self._metrics_buffer.count_cached_reads("page", 0, 1)
            page.waiting.append(read)
            if page.loading is None:
                self._load_in_task(target, page)
        return True

    # Public pages.

    def _open_page(self, target: bytes) -> _CachedPage | None:
        """Make a page that is not loaded yet; None if it is not one that many look at."""
        pages, size = self._public_pages, self._page_items
        if target == b"/v1/sales":
            page = _CachedPage("/v1/sales", partial(pages.list_sales, None, size))
        elif match := _PRODUCT.fullmatch(target):
            page = _CachedPage("/v1/products/{sku}", partial(pages.get_product, match[1].decode()))
        elif match := _SALE.fullmatch(target):
            sale_id = match[1].decode()
            if self._snapshots.cached(sale_id) is None:
                return None
            if match[2] is None:
                page = _CachedPage("/v1/sales/{sale_id}", partial(pages.get_sale, sale_id))
            else:
                cursor = match[3].decode() if match[3] else None
                if not pages.is_page_start(sale_id, cursor, size):
                    return None
                page = _CachedPage("/v1/sales/{sale_id}/offers", partial(pages.list_offers, sale_id, cursor, size))
        else:
            return None
        self._new_pages[target] = page
        return page

    def _load_in_task(self, target: bytes, page: _CachedPage) -> None:
        page.loading = self._run(self._load(target, page))

    async def _load(self, target: bytes, page: _CachedPage) -> None:
        """Load a page and answer all who wait for it."""
        version, error = self._snapshots.version, None
        try:
            page.content = await page.load()
        except Exception as failure:  # noqa: BLE001  # those who wait for the page are told
            error = failure
        self._new_pages.pop(target, None)
        if self._pages.pop(target, None) is not None:
            self._page_bytes -= _size(page)
        page.loading = None
        if error is None:
            read_at = page.content.read_at
            page.version = None if page.route.startswith("/v1/products") else version
            page.refresh_at = float("inf") if read_at is None else read_at + REFRESH_AGE_S
            page.usable_until = (
                float("inf") if read_at is None else max(read_at + MAX_AGE_S, self._clock.monotonic() + _MIN_USE_S)
            )
            self._keep(target, page)
        reads, page.waiting = page.waiting, []
        for read in reads:
            if error is None:
                self._send_content(read, page.content)
            else:
                self._send_failure(read, error)
