"""Reads without aiohttp: public pages from memory, and orders' own states in batches.

`take` takes only GETs in their common form. aiohttp answers all others, with the same content.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.errors import ProblemError
from commerce.kernel.tasks import cancel_and_wait
from commerce.orders.service import Orders
from config.settings import LimitSettings
from gateway.auth import Authenticator
from gateway.fast_path_responses import ResponseHeads
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_reads import OrderRead, OrderReads, encode_order
from gateway.page_cache import CachedPage, PageCache
from gateway.public_pages import PublicPages
from gateway.read_responses import PendingRead, ReadResponder
from gateway.request_head import RequestHead
from gateway.room_status import RoomStatus
from gateway.sale_snapshots import SaleSnapshots
from gateway.visit_counts import OFFERS_ROUTE, VARIANT_ROUTE
from gateway.wait_list_status import WaitListStatus

_SALE = re.compile(rb"/v1/sales/([a-z0-9][a-z0-9-]{0,63})(/offers(?:\?cursor=([A-Za-z0-9][A-Za-z0-9._-]{0,63}))?)?")
_VARIANT = re.compile(rb"/v1/variants/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_ORDER = re.compile(rb"/v1/orders/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_ORDER_ROUTE, _ROOM_ROUTE = "/v1/orders/{order_id}", "/v1/sales/{sale_id}/room"
_WAIT_LIST_ROUTE = "/v1/sales/{sale_id}/wait-list"


class FastReads:
    """Answers GETs in their common form whose answers are in memory, or take one query for many of them."""

    def __init__(
        self,
        auth: Authenticator,
        snapshots: SaleSnapshots,
        public_pages: PublicPages,
        page_cache: PageCache,
        orders: Orders,
        order_reads: OrderReads,
        responder: ReadResponder,
        room_status: RoomStatus,
        wait_list_status: WaitListStatus,
        *,
        page_items: int,
        stopping: asyncio.Event,
    ) -> None:
        self._auth = auth
        self._snapshots = snapshots
        self._public_pages = public_pages
        self._page_cache = page_cache
        self._orders = orders
        self._order_reads = order_reads
        self._responder = responder
        self._room_status = room_status
        self._wait_list_status = wait_list_status
        self._page_items = page_items
        self._stopping = stopping
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop all reads; nobody may ask any more."""
        await self._page_cache.close()
        await self._order_reads.close()
        await self._public_pages.close()
        for task in list(self._tasks):
            await cancel_and_wait(task)

    def take(self, target: bytes, head: RequestHead, request_id: str, send: Callable[[bytes], None]) -> bool:
        """Answer a GET in its common form: call `send` once, now or later.

        `target` is the path with the query. Returns False if aiohttp is to answer, and then never calls `send`.
        """
        if self._stopping.is_set():
            return False
        started = perf_counter()
        for route, pages in ((_ROOM_ROUTE, self._room_status.pages), (_WAIT_LIST_ROUTE, self._wait_list_status.pages)):
            if (content := pages.get(target)) is not None:
                tags = head.values[head.layout.if_none_match]
                self._responder.send_content(
                    PendingRead(route, target.decode(), tags, request_id, send, started), content
                )
                return True
        page = self._page_cache.find(target)
        order = None if page is not None else _ORDER.fullmatch(target)
        if page is None and order is None:
            page = self._open_page(target)
            if page is None:
                return False
        route = _ORDER_ROUTE if page is None else page.route
        tags = head.values[head.layout.if_none_match]
        read = PendingRead(route, target.decode(), tags, request_id, send, started)
        if page is not None:
            self._page_cache.answer(target, page, read)
        elif order is not None:
            self._take_order(order[1].decode(), head.values[head.layout.authorization], read)
        return True

    def _open_page(self, target: bytes) -> CachedPage | None:
        """Add a page to the cache; returns None if this is not one that many look at."""
        pages, size = self._public_pages, self._page_items
        if target == b"/v1/sales":
            page = CachedPage("/v1/sales", partial(pages.list_sales, None, size), follows_sales=True)
        elif match := _VARIANT.fullmatch(target):
            load = partial(pages.get_variant, match[1].decode())
            page = CachedPage(VARIANT_ROUTE, load, follows_sales=False)
        elif match := _SALE.fullmatch(target):
            sale_id, cursor = match[1].decode(), match[3].decode() if match[3] else None
            if self._snapshots.cached(sale_id) is None:
                return None
            if match[2] is None:
                page = CachedPage("/v1/sales/{sale_id}", partial(pages.get_sale, sale_id), follows_sales=True)
            elif pages.is_page_start(sale_id, cursor, size):
                load = partial(pages.list_offers, sale_id, cursor, size)
                page = CachedPage(OFFERS_ROUTE, load, follows_sales=True)
            else:
                return None
        else:
            return None
        return self._page_cache.add(target, page)

    def _take_order(self, order_id: str, authorization: bytes | None, read: PendingRead) -> None:
        try:
            user_id = self._auth.identify_customer(authorization).subject
        except ProblemError as refusal:
            self._responder.send_failure(read, refusal)
            return
        self._order_reads.submit(order_id, partial(self._answer_order, order_id, user_id, read))

    def _answer_order(self, order_id: str, user_id: str, read: PendingRead, result: OrderRead) -> None:
        if isinstance(result, Exception):
            self._responder.send_failure(read, result)
        elif result is not None and result.user_id == user_id:
            self._responder.send_content(read, result.content)
        else:
            # Not found, dead, or not the customer's: nobody learns from the time of the answer which of them it is.
            task = asyncio.create_task(self._find_order(UUID(order_id), user_id, read))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _find_order(self, order_id: UUID, user_id: str, read: PendingRead) -> None:
        """Answer as the endpoint does, which looks in Redis too."""
        try:
            content = encode_order(await self._orders.get(order_id, user_id, self._snapshots.sale_ids()))
        except Exception as error:  # noqa: BLE001  # the answer tells it
            self._responder.send_failure(read, error)
        else:
            self._responder.send_content(read, content)


def build_fast_reads(
    stack: AsyncExitStack,
    limits: LimitSettings,
    clock: Clock,
    auth: Authenticator,
    snapshots: SaleSnapshots,
    public_pages: PublicPages,
    orders: Orders,
    room_status: RoomStatus,
    wait_list_status: WaitListStatus,
    response_heads: ResponseHeads,
    metrics_buffer: MetricsBuffer,
    stopping: asyncio.Event,
) -> FastReads:
    """Build the reads that bypass aiohttp; `stack` closes them."""
    responder = ReadResponder(response_heads, metrics_buffer, public_pages.visits)
    fast_reads = FastReads(
        *(auth, snapshots, public_pages, PageCache(snapshots, responder, metrics_buffer, clock), orders),
        *(OrderReads(orders, snapshots, metrics_buffer), responder, room_status, wait_list_status),
        page_items=limits.page_items,
        stopping=stopping,
    )
    stack.push_async_callback(fast_reads.close)
    return fast_reads
