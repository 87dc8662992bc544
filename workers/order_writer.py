"""Stores accepted orders in Postgres, and acknowledges their stream entries after the commit.

A sale's stream is read by a consumer group, so any number of writers share it. A writer first stores the entries that
it had read before a restart. It also claims entries that another writer has not acknowledged for a while. Orders that
come twice are recognised by their ids, so every step may be repeated. An order that Postgres refuses, or that cannot be
read, becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from time import perf_counter
from typing import NamedTuple
from uuid import UUID

import msgspec

import lua
from commerce.dead_letters import store as dead_letters
from commerce.kernel.clock import from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, safe_error_text
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted
from commerce.orders.persistence import PersistResult, persist
from commerce.sales.model import SaleState
from config.settings import WriterSettings
from lua import Entry, SaleKeys, StreamMissing
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_READ_RETRY_INTERVAL_S = 1.0
_WRITE_BACKOFF_INITIAL_S = 0.1
_CONSUMER_IDLE_MS = 3_600_000


async def order_writer(services: WorkerServices) -> None:
    """Store the orders of all sales, with one reader per sale that is open or has orders in its stream."""
    readers: dict[str, asyncio.Task[None]] = {}
    read_slots = ReadSlots(services.settings.writer)
    try:
        while not services.stop.is_set():
            try:
                sale_ids = await _sales_to_read(services)
            except Exception:
                _logger.exception("cannot list the sales")
                sale_ids = set(readers)
            for sale_id in sale_ids - readers.keys():
                writer = SaleStreamWriter(services, sale_id, read_slots)
                readers[sale_id] = asyncio.create_task(writer.run(), name=f"write {sale_id}")
            for sale_id in readers.keys() - sale_ids:
                readers[sale_id].cancel()
            for sale_id in [sale_id for sale_id, task in readers.items() if task.done()]:
                _log_failure(readers.pop(sale_id))
            await wait_or_stop(services.stop, _POLL_INTERVAL_S)
    finally:
        if readers:
            await asyncio.wait(readers.values(), timeout=services.settings.limits.graceful_stop_s)


def _log_failure(reader: asyncio.Task[None]) -> None:
    if not reader.cancelled() and (error := reader.exception()):
        _logger.error("restarting a reader that failed", exc_info=error)


async def _sales_to_read(services: WorkerServices) -> set[str]:
    """Return the sales that are open, and the closed ones that have, or may have, orders in their stream."""
    sales = await services.sales.list_opened()
    closed = [sale.sale_id for sale in sales if sale.state is SaleState.CLOSED]
    counts = await lua.read_accepted_counts(services.redis, [SaleKeys(sale_id) for sale_id in closed])
    with_orders = {sale_id for sale_id, count in zip(closed, counts, strict=True) if count != 0}
    return with_orders | {sale.sale_id for sale in sales if sale.state is not SaleState.CLOSED}


class ReadSlots:
    """Limits concurrent reads to `writer.concurrent_reads`.

    Each read that waits holds a Redis connection. With more readers than slots each read waits for a shorter time, so
    that every sale is still read once within `writer.read_block_ms`."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrent_reads)  # first come, first served
        self.readers = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[int]:
        """Wait for a slot. Yields for how many milliseconds the read may block."""
        async with self._slots:
            share = min(1.0, self._settings.concurrent_reads / max(1, self.readers))
            yield max(1, int(self._settings.read_block_ms * share))  # 0 would block without limit


class UnreadableOrder(NamedTuple):
    """An order of a stream entry that cannot be decoded. `field` is its order id, as the entry names it."""

    entry: Entry
    field: bytes
    payload: bytes
    reason: str


class SaleStreamWriter:
    """Stores the orders of one sale's stream."""

    def __init__(self, services: WorkerServices, sale_id: str, read_slots: ReadSlots) -> None:
        self._services = services
        self._read_slots = read_slots
        self._settings = services.settings.writer
        self._sale_id = sale_id
        self._keys = SaleKeys(sale_id)
        self._consumer = services.instance
        self._claim_idle_at = 0.0

    async def run(self) -> None:
        """Read and store orders until the process stops; batches in progress are finished first."""
        writing: set[asyncio.Task[None]] = set()
        self._read_slots.readers += 1
        try:
            await self._read(writing)
        finally:
            self._read_slots.readers -= 1
            # A cancelled reader finishes its batches; another writer claims what it does not finish.
            if writing:
                await asyncio.wait(writing)

    async def _read(self, writing: set[asyncio.Task[None]]) -> None:
        """Read batch after batch and store several at once: while Postgres commits one, the next is prepared."""
        has_pending = True
        while not self._services.stop.is_set():
            if has_pending and writing:  # otherwise the entries being stored now would be read again
                await asyncio.wait(writing)
            try:
                async with self._read_slots.acquire() as block_ms:
                    entries, has_pending = await self._next_entries(has_pending, block_ms)
            except StreamMissing:
                await wait_or_stop(self._services.stop, _POLL_INTERVAL_S)
                continue
            except Exception as error:  # noqa: BLE001  # Redis is unavailable or answers unexpectedly: retry
                _logger.warning("cannot read the stream", extra={"sale_id": self._sale_id, "reason": str(error)})
                await wait_or_stop(self._services.stop, _READ_RETRY_INTERVAL_S)
                has_pending = True
                continue
            if not entries:
                continue
            failpoint("writer.after_read")
            task = asyncio.create_task(self.write(entries), name=f"write {self._sale_id}")
            writing.add(task)
            task.add_done_callback(writing.discard)
            if len(writing) >= self._settings.concurrent_batches:
                await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)

    async def _next_entries(self, has_pending: bool, block_ms: int) -> tuple[list[Entry], bool]:
        """Return the next entries to store, and whether this consumer may still have pending ones."""
        services, count = self._services, self._settings.entries_per_read
        if has_pending:
            entries = await lua.read_pending(services.redis, self._keys, self._consumer, count)
            return entries, bool(entries)
        now = services.clock.monotonic()
        if now >= self._claim_idle_at:
            idle_ms = self._settings.claim_idle_ms
            self._claim_idle_at = now + idle_ms / 1000
            if entries := await lua.claim_idle_entries(services.redis, self._keys, self._consumer, idle_ms, count):
                _logger.warning(
                    "claimed idle stream entries", extra={"sale_id": self._sale_id, "entries": len(entries)}
                )
                self._claim_idle_at = now
                return entries, False
            await lua.delete_idle_consumers(services.redis, self._keys, _CONSUMER_IDLE_MS)
        return await lua.read_new(services.redis, self._keys, self._consumer, count, block_ms), False

    async def write(self, entries: Sequence[Entry]) -> None:
        """Store the orders of entries and acknowledge the entries.

        Retries until that succeeds or the process stops."""
        orders, unreadable = _decode(entries)
        backoff_s = _WRITE_BACKOFF_INITIAL_S
        while True:
            try:
                await self._store(orders, unreadable)
                await lua.acknowledge(self._services.redis, self._keys, entries)
                return
            except Exception as error:  # noqa: BLE001  # no order causes it, or `persist` would have dead-lettered it
                metrics.WRITE_FAILURES.inc()
                _logger.warning(
                    "retrying a batch",
                    extra={"sale_id": self._sale_id, "orders": len(orders), "reason": safe_error_text(error)},
                )
            if self._services.stop.is_set():
                return  # the entries stay pending, and the next writer reads them
            await wait_or_stop(self._services.stop, backoff_s)
            backoff_s = min(backoff_s * 2, self._settings.backoff_max_s)

    async def _store(self, orders: Sequence[StreamedOrder], unreadable: Sequence[UnreadableOrder]) -> None:
        started = perf_counter()
        now = from_ms(self._services.clock.now_ms())
        size = self._settings.orders_per_batch
        async with self._services.db.connection() as connection:
            for first in range(0, len(orders), size):
                self._count(await persist(connection, orders[first : first + size], now))
            for order in unreadable:
                await self._dead_letter(connection, order, now)
        failpoint("writer.after_commit")
        metrics.WRITE_BATCH_SECONDS.observe(perf_counter() - started)
        if orders:
            oldest_ms = min(order.entry.ms for order in orders)
            metrics.WRITE_LAG_SECONDS.observe(max(0, self._services.clock.now_ms() - oldest_ms) / 1000)

    async def _dead_letter(self, connection: Connection, order: UnreadableOrder, now: datetime) -> None:
        entry, field = order.entry, order.field
        await dead_letters.insert(
            connection,
            order_id=UUID(bytes=field) if len(field) == 16 else UUID(int=entry.id.ms << 64 | entry.id.seq),
            sale_id=self._sale_id,
            order=None,
            payload=order.payload,
            error=f"it cannot be read: {order.reason}",
            entry=entry.id,
            now=now,
        )
        metrics.WRITTEN_ORDERS.labels("dead_lettered").inc()
        _logger.error("cannot read an order", extra={"sale_id": self._sale_id, "order_id": field.hex()})

    def _count(self, result: PersistResult) -> None:
        counts = {"stored": result.stored, "duplicate": result.duplicates, "refused": len(result.refused)}
        for word, count in counts.items():
            if count:
                metrics.WRITTEN_ORDERS.labels(word).inc(count)
        for order_id, reason in result.dead_lettered.items():
            metrics.WRITTEN_ORDERS.labels("dead_lettered").inc()
            _logger.error("dead-lettered an order", extra={"order_id": str(order_id), "reason": reason})


def _decode(entries: Sequence[Entry]) -> tuple[list[StreamedOrder], list[UnreadableOrder]]:
    orders, unreadable = [], []
    for entry in entries:
        for field, payload in entry.orders:
            try:
                order = decode_accepted(payload)
                if order.order_id.bytes != field:
                    raise ValueError("its order id is not the one that the entry names")
                orders.append(StreamedOrder(order, entry.id, payload))
            except (msgspec.MsgspecError, ValueError) as error:
                unreadable.append(UnreadableOrder(entry, field, payload, str(error)))
    return orders, unreadable
