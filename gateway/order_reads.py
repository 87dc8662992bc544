"""Orders for many readers at once: one query per batch, which returns only orders that have changed.

Every answer is as new as its request: memory saves reading and encoding an order again, never asking for its version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.tasks import cancel_and_wait
from commerce.orders.model import Order
from commerce.orders.service import Orders
from gateway.cached_content import Content, encode_content
from gateway.metrics_buffer import MetricsBuffer
from gateway.sale_snapshots import SaleSnapshots

_logger = logging.getLogger(__name__)
ORDER_CACHE_CONTROL = "private, no-cache"
_ORDERS_PER_QUERY = 500
_MAX_ORDERS = 50_000
_MAX_BYTES = 33_554_432
_OVERHEAD_BYTES = 500


class StoredOrder(NamedTuple):
    """A stored order, encoded for the customer who placed it."""

    version: int
    user_id: str
    content: Content


def encode_order(order: Order) -> Content:
    """Encode an order for the customer who placed it."""
    return encode_content(order, ORDER_CACHE_CONTROL)


class AcceptedContent(NamedTuple):
    """An order that is not stored yet, encoded for the customer who placed it."""

    user_id: str
    content: Content


OrderRead = StoredOrder | AcceptedContent | Exception | None
"""An order, None if it is neither stored nor in Redis, or the error of the query."""
OnRead = Callable[[OrderRead], None]


class OrderReads:
    """Reads orders in batches and keeps the most recently read stored ones encoded."""

    def __init__(self, orders: Orders, snapshots: SaleSnapshots, metrics_buffer: MetricsBuffer) -> None:
        self._orders = orders
        self._snapshots = snapshots
        self._metrics_buffer = metrics_buffer
        self._stored: dict[str, StoredOrder] = {}
        self._bytes = 0
        self._waiting: list[tuple[str, OnRead]] = []
        self._reading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._stored)

    def submit(self, order_id: str, on_read: OnRead) -> None:
        """Read an order with the next batch; `order_id` is in its usual form.

        Orders that arrive in one iteration of the event loop, or during a query, share the next query. `on_read` is
        called once, after two timeouts of the database and one of Redis at most.
        """
        self._waiting.append((order_id, on_read))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_batches())

    async def close(self) -> None:
        """Stop reading; nobody may ask any more."""
        for task in [*self._tasks, *([] if self._reading is None else [self._reading])]:
            await cancel_and_wait(task)

    async def _read_batches(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # the other requests of this iteration of the event loop join
                batch, self._waiting = self._waiting[:_ORDERS_PER_QUERY], self._waiting[_ORDERS_PER_QUERY:]
                try:
                    stored = await self._read({order_id for order_id, _ in batch})
                except Exception as error:  # noqa: BLE001  # those who wait for the orders answer it
                    batch, self._waiting = batch + self._waiting, []  # nobody waits for two failures
                    for _, on_read in batch:
                        _call(on_read, error)
                    continue
                not_stored = []
                for order_id, on_read in batch:
                    if order := stored.get(order_id):
                        _call(on_read, order)
                    else:
                        not_stored.append((order_id, on_read))
                if not_stored:  # in a task: Redis keeps nobody waiting who reads a stored order
                    task = asyncio.create_task(self._read_accepted(not_stored))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            self._reading = None

    async def _read_accepted(self, batch: list[tuple[str, OnRead]]) -> None:
        """Look for orders in Redis that are not stored yet."""
        order_ids = [UUID(order_id) for order_id in dict.fromkeys(order_id for order_id, _ in batch)]
        try:
            accepted = await self._orders.find_accepted(order_ids, self._snapshots.sale_ids())
        except Exception as error:  # noqa: BLE001  # the ordinary way meets it again and answers
            _logger.warning("cannot look for accepted orders", extra={"reason": str(error)})
            accepted = {}
        orders = {
            str(order_id): AcceptedContent(user_id, encode_order(order))
            for order_id, (user_id, order) in accepted.items()
        }
        for order_id, on_read in batch:
            _call(on_read, orders.get(order_id))

    async def _read(self, order_ids: set[str]) -> dict[str, StoredOrder]:
        previous = {order_id: self._stored.get(order_id) for order_id in order_ids}
        versions = {UUID(order_id): None if order is None else order.version for order_id, order in previous.items()}
        result = {order_id: order for order_id, order in previous.items() if order is not None}
        for order_id, changed in (await self._orders.read_changed(versions)).items():
            text = str(order_id)
            if changed is None:
                result.pop(text, None)
            else:
                result[text] = StoredOrder(changed.version, changed.user_id, encode_order(changed.order))
        hits = 0
        for text, order in result.items():
            hits += order is previous[text]
            self._keep(text, order)
        self._metrics_buffer.count_cached_reads("order", hits, len(order_ids) - hits)
        return result

    def _keep(self, order_id: str, order: StoredOrder) -> None:
        """Keep an order as the most recent one, in the place of the oldest if there is no room."""
        previous = self._stored.pop(order_id, None)
        if previous is not None:
            self._bytes -= len(previous.content.body) + _OVERHEAD_BYTES
        self._stored[order_id] = order
        self._bytes += len(order.content.body) + _OVERHEAD_BYTES
        while len(self._stored) > _MAX_ORDERS or self._bytes > _MAX_BYTES:
            oldest = self._stored.pop(next(iter(self._stored)))
            self._bytes -= len(oldest.content.body) + _OVERHEAD_BYTES


def _call(on_read: OnRead, result: OrderRead) -> None:
    try:
        on_read(result)
    except Exception:
        _logger.exception("cannot answer a read of an order")
