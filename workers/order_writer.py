"""Takes accepted orders from the streams and brings them into Postgres; forgets in Redis only what is committed.

A sale's stream is read by a consumer group, so any number of writers share it. A writer first finishes what it had
in hand before it died, and takes over what another has not finished for a while. Whatever comes twice is recognised
by its id, so every step may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from uuid import UUID

import msgspec

import lua
from commerce.dead_letters import store as dead_letters
from commerce.kernel.clock import from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import safe_error_text
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted
from commerce.orders.persistence import PersistResult, persist
from commerce.sales.model import SaleState
from config.settings import WriterSettings
from lua import Entry, SaleKeys, StreamMissing
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_LOOK_S = 0.5
_RETRY_FIRST_S = 0.1
_IDLE_READERS_MS = 3_600_000


async def order_writer(shop: WorkerServices) -> None:
    """Write the orders of all sales: one reader for each that is open or has something left."""
    readers: dict[str, asyncio.Task[None]] = {}
    turns = ReadSlots(shop.settings.writer)
    try:
        while not shop.stop.is_set():
            try:
                wanted = await _sales_to_read(shop)
            except Exception:
                _logger.exception("the sales cannot be looked at")
                wanted = set(readers)
            for sale_id in wanted - readers.keys():
                work = SaleStreamWriter(shop, sale_id, turns).run()
                readers[sale_id] = asyncio.create_task(work, name=f"write {sale_id}")
            for sale_id in readers.keys() - wanted:
                readers[sale_id].cancel()
            for sale_id in [sale_id for sale_id, task in readers.items() if task.done()]:
                await _finished(readers.pop(sale_id))
            await wait_or_stop(shop.stop, _LOOK_S)
    finally:
        if readers:
            await asyncio.wait(readers.values(), timeout=shop.settings.limits.graceful_stop_s)


async def _finished(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _logger.error("a reader ended and is started anew", exc_info=error)


async def _sales_to_read(shop: WorkerServices) -> set[str]:
    """Sales that are open, and closed ones that still have orders on the way."""
    sales = await shop.sales.list_opened()
    closed = [sale.sale_id for sale in sales if sale.state is SaleState.CLOSED]
    counts = await lua.accepted_counts(shop.redis, [SaleKeys(sale_id) for sale_id in closed])
    left = {sale_id for sale_id, count in zip(closed, counts, strict=True) if count}
    return left | {sale.sale_id for sale in sales if sale.state is not SaleState.CLOSED}


class ReadSlots:
    """Reads of all sales: `writer.concurrent_reads` at a time, since each holds a connection while it waits for orders.

    With more readers than that each waits for a shorter time, so that every sale is still looked at once within
    `writer.read_block_ms`.
    """

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.concurrent_reads)  # first come, first served
        self.readers = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[int]:
        """Wait for a turn to read; gives how long the read may wait for orders, in ms."""
        async with self._free:
            share = min(1.0, self._settings.concurrent_reads / max(1, self.readers))
            yield max(1, int(self._settings.read_block_ms * share))  # 0 would be for ever


class SaleStreamWriter:
    """Reads one sale's stream."""

    def __init__(self, shop: WorkerServices, sale_id: str, turns: ReadSlots) -> None:
        self._shop = shop
        self._turns = turns
        self._settings = shop.settings.writer
        self._sale_id = sale_id
        self._keys = SaleKeys(sale_id)
        self._consumer = shop.instance
        self._look_for_dead_at = 0.0

    async def run(self) -> None:
        """Until the process stops; batches in hand are finished first."""
        writing: set[asyncio.Task[None]] = set()
        self._turns.readers += 1
        try:
            await self._read(writing)
        finally:
            self._turns.readers -= 1
            # A reader that is cancelled finishes what it has; what it does not finish, a takeover does.
            if writing:
                await asyncio.wait(writing)

    async def _read(self, writing: set[asyncio.Task[None]]) -> None:
        """Read batch after batch, and write several at once: while Postgres commits one, the next is made ready."""
        unfinished = True
        while not self._shop.stop.is_set():
            if unfinished and writing:  # or what is being written now would be read once more
                await asyncio.wait(writing)
            try:
                async with self._turns.turn() as wait_ms:
                    entries, unfinished = await self._next(unfinished, wait_ms)
            except StreamMissing:
                await wait_or_stop(self._shop.stop, _LOOK_S)
                continue
            except Exception as error:  # noqa: BLE001  # Redis is away, or answers strangely: look again
                _logger.warning("the stream cannot be read", extra={"sale": self._sale_id, "why": str(error)})
                await wait_or_stop(self._shop.stop, 1.0)
                unfinished = True
                continue
            if not entries:
                continue
            failpoint("writer.after_read")
            task = asyncio.create_task(self.write(entries), name=f"write {self._sale_id}")
            writing.add(task)
            task.add_done_callback(writing.discard)
            if len(writing) >= self._settings.concurrent_batches:
                await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)

    async def _next(self, unfinished: bool, wait_ms: int) -> tuple[list[Entry], bool]:
        """What to write next, and whether this reader may still have entries from before."""
        count = self._settings.entries_per_read
        if unfinished:
            entries = await lua.read_pending(self._shop.redis, self._keys, self._consumer, count)
            return entries, bool(entries)
        now = self._shop.clock.monotonic()
        if now >= self._look_for_dead_at:
            idle_ms = self._settings.claim_idle_ms
            self._look_for_dead_at = now + idle_ms / 1000
            if entries := await lua.claim_idle_entries(self._shop.redis, self._keys, self._consumer, idle_ms, count):
                _logger.warning("took over entries", extra={"sale": self._sale_id, "entries": len(entries)})
                self._look_for_dead_at = now
                return entries, False
            await lua.delete_idle_consumers(self._shop.redis, self._keys, _IDLE_READERS_MS)
        return await lua.read_new(self._shop.redis, self._keys, self._consumer, count, wait_ms), False

    async def write(self, entries: Sequence[Entry]) -> None:
        """Store the orders of these entries and forget the entries; tries until it succeeds or the process stops."""
        arrived, unreadable = _decoded(entries)
        wait_s = _RETRY_FIRST_S
        while True:
            try:
                await self._store(arrived, unreadable)
                await lua.acknowledge(self._shop.redis, self._keys, entries)
                return
            except Exception as error:  # noqa: BLE001  # not an order's fault, or persist would have dealt with it
                metrics.WRITE_FAILURES.inc()
                _logger.warning(
                    "a batch is tried again",
                    extra={"sale": self._sale_id, "orders": len(arrived), "why": safe_error_text(error)},
                )
            if self._shop.stop.is_set():
                return  # the entries stay pending, for whoever comes next
            await wait_or_stop(self._shop.stop, wait_s)
            wait_s = min(wait_s * 2, self._settings.backoff_max_s)

    async def _store(
        self, arrived: Sequence[StreamedOrder], unreadable: Sequence[tuple[Entry, bytes, bytes, str]]
    ) -> None:
        started = perf_counter()
        now = from_ms(self._shop.clock.now_ms())
        size = self._settings.orders_per_batch
        async with self._shop.db.connection() as connection:
            for first in range(0, len(arrived), size):
                self._count(await persist(connection, arrived[first : first + size], now))
            for entry, field, payload, why in unreadable:
                await dead_letters.insert(
                    connection,
                    order_id=UUID(bytes=field) if len(field) == 16 else UUID(int=entry.id.ms << 64 | entry.id.seq),
                    sale_id=self._sale_id,
                    order=None,
                    payload=payload,
                    error=f"it cannot be read: {why}",
                    entry=entry.id,
                    now=now,
                )
                metrics.WRITTEN.labels("dead").inc()
                _logger.error("an order cannot be read", extra={"sale": self._sale_id, "order_id": field.hex()})
        failpoint("writer.after_commit")
        metrics.WRITE_SECONDS.observe(perf_counter() - started)
        if arrived:
            oldest = min(item.entry.ms for item in arrived)
            metrics.WRITE_LAG_SECONDS.observe(max(0, self._shop.clock.now_ms() - oldest) / 1000)

    def _count(self, result: PersistResult) -> None:
        for name, count in (("stored", result.stored), ("known", result.duplicates), ("refused", len(result.refused))):
            if count:
                metrics.WRITTEN.labels(name).inc(count)
        for order_id, why in result.dead_lettered.items():
            metrics.WRITTEN.labels("dead").inc()
            _logger.error("an order was dead-lettered", extra={"order_id": str(order_id), "why": why})


def _decoded(entries: Sequence[Entry]) -> tuple[list[StreamedOrder], list[tuple[Entry, bytes, bytes, str]]]:
    arrived, unreadable = [], []
    for entry in entries:
        for field, payload in entry.orders:
            try:
                order = decode_accepted(payload)
                if order.order_id.bytes != field:
                    raise ValueError("it holds another order than it is filed under")
                arrived.append(StreamedOrder(order, entry.id, payload))
            except (msgspec.MsgspecError, ValueError) as error:
                unreadable.append((entry, field, payload, str(error)))
    return arrived, unreadable
