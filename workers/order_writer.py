"""Stores accepted orders in Postgres, and acknowledges their stream entries after the commit.

A sale's stream is read by a consumer group, so any number of writers share it. A writer first stores the entries that
it had read before a restart. It also claims entries that another writer has not acknowledged for a while; one that
fails to store its own does not. Orders that come twice are recognised by their ids, so every step may be repeated. An
order that Postgres refuses, or that cannot be read, becomes a dead letter if other orders can be stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from uuid import UUID

import msgspec

import lua
from commerce.kernel.clock import from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Connection, safe_error_text
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted
from commerce.orders.errors import OrdersNotStorable
from commerce.orders.model import PersistResult
from commerce.orders.persistence import FailedOrder, SalePersistence, insert_dead_letter
from commerce.sales.model import SaleState
from commerce.sales.store import find_persisted
from commerce.sales.writer_fence import split_lost_entries
from lua import Entry, EntryId, SaleKeys, StreamMissing
from workers import metrics
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices
from workers.stream_reader import ReadSlots, StreamReader

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_READ_RETRY_INTERVAL_S = 1.0
_WRITE_BACKOFF_INITIAL_S = 0.1


async def order_writer(services: WorkerServices) -> None:
    """Store the orders of all sales, with one reader per sale that is open or has orders in its stream."""
    readers: dict[str, asyncio.Task[None]] = {}
    read_slots = ReadSlots(services.settings.writer)
    try:
        while not services.stop.is_set():
            try:
                sale_ids = await _sales_to_read(services)
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot list the sales", error)
                sale_ids = set(readers)
            for sale_id in sale_ids - readers.keys():
                writer = SaleStreamWriter(services, sale_id, read_slots)
                readers[sale_id] = asyncio.create_task(writer.run(), name=f"write {sale_id}")
            for sale_id in readers.keys() - sale_ids:
                if not readers[sale_id].cancelling():  # a second time would end the wait for its batches
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


class SaleStreamWriter:
    """Stores the orders of one sale's stream."""

    def __init__(self, services: WorkerServices, sale_id: str, read_slots: ReadSlots) -> None:
        self._services = services
        self._read_slots = read_slots
        self._settings = services.settings.writer
        self._sale_id = sale_id
        self._keys = SaleKeys(sale_id)
        self._reader = StreamReader(services, sale_id)
        self._persistence = SalePersistence()
        self._retries: dict[EntryId, bool] = {}
        """batches that are tried again, by their first entry; true if their orders are suspects"""

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
        while not self._services.stop.is_set():
            try:
                async with self._read_slots.acquire() as block_ms:
                    entries = await self._reader.take(block_ms, may_claim=not self._retries)
            except StreamMissing:
                await wait_or_stop(self._services.stop, _POLL_INTERVAL_S)
                continue
            except Exception as error:  # noqa: BLE001  # Redis is unavailable or answers unexpectedly: retry
                _logger.warning("cannot read the stream", extra={"sale_id": self._sale_id, "reason": str(error)})
                await wait_or_stop(self._services.stop, _READ_RETRY_INTERVAL_S)
                self._reader.read_pending_again()
                continue
            if not entries:
                continue
            failpoint("writer.after_read")
            task = asyncio.create_task(self.write(entries), name=f"write {self._sale_id}")
            writing.add(task)
            task.add_done_callback(writing.discard)
            await self._wait_for_room(writing)

    async def _wait_for_room(self, writing: set[asyncio.Task[None]]) -> None:
        """Wait until another batch may be read. Suspects leave room, because only other orders can clear them."""
        while len(writing) >= self._settings.concurrent_batches * (2 if any(self._retries.values()) else 1):
            await asyncio.wait(writing, timeout=_POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
        if any(self._retries.values()):  # the more orders come together, the more likely a good one is among them
            await wait_or_stop(self._services.stop, _POLL_INTERVAL_S)

    async def write(self, entries: Sequence[Entry]) -> None:
        """Store the orders of entries and acknowledge the entries.

        Retries until that succeeds or the process stops."""
        try:
            await self._write(entries)
        finally:
            self._retries.pop(entries[0].id, None)
            self._reader.give_up(entries)

    async def _write(self, entries: Sequence[Entry]) -> None:
        backoff_s = _WRITE_BACKOFF_INITIAL_S
        while True:
            try:
                async with self._reader.renewing(entries):
                    await self._store(entries)
                    await lua.acknowledge(self._services.redis, self._keys, entries)
                return
            except Exception as error:  # noqa: BLE001  # no order causes it, or `persist` would have dead-lettered it
                self._report_failure(error, entries)
            if self._services.stop.is_set():
                return  # the entries stay pending, and the next writer reads them
            await wait_or_stop(self._services.stop, backoff_s)
            backoff_s = min(backoff_s * 2, self._settings.backoff_max_s)

    def _report_failure(self, error: Exception, entries: Sequence[Entry]) -> None:
        is_suspect = isinstance(error, OrdersNotStorable)
        self._retries[entries[0].id] = is_suspect
        metrics.WRITE_FAILURES.inc()
        if isinstance(error, OrdersNotStorable):
            metrics.SUSPECT_BATCHES.inc()
            self._count(error.result)
        _logger.log(
            logging.ERROR if is_suspect else logging.WARNING,
            "retrying a batch",
            extra={"sale_id": self._sale_id, "entries": len(entries), "reason": safe_error_text(error)},
        )

    async def _store(self, entries: Sequence[Entry]) -> None:
        started = perf_counter()
        now = from_ms(self._services.clock.now_ms())
        not_storable: OrdersNotStorable | None = None
        async with self._services.db.transaction() as connection:
            kept, lost = await split_lost_entries(connection, self._services.redis, self._sale_id, entries)
            orders, unreadable = _decode(kept, self._sale_id)
            try:
                result = await self._persistence.persist(
                    connection,
                    orders,
                    now,
                    unreadable=unreadable,
                    orders_per_transaction=self._settings.orders_per_batch,
                )
            except OrdersNotStorable as error:  # what is stored stays stored
                not_storable, result = error, error.result
            await self._dead_letter_lost(connection, lost, now, result)
        if not_storable:
            self._persistence.confirm(result)
            raise not_storable
        resolved = [item.order.order_id for item in orders] + [failed.order_id for failed in unreadable]
        self._persistence.confirm(result, resolved)
        self._count(result)
        failpoint("writer.after_commit")
        metrics.WRITE_BATCH_SECONDS.observe(perf_counter() - started)
        if orders:
            oldest_ms = min(order.entry.ms for order in orders)
            metrics.WRITE_LAG_SECONDS.observe(max(0, self._services.clock.now_ms() - oldest_ms) / 1000)

    async def _dead_letter_lost(
        self, connection: Connection, entries: Sequence[Entry], now: datetime, result: PersistResult
    ) -> None:
        """Keep orders that Redis lost as dead letters: their units are for sale again."""
        orders, unreadable = _decode(entries, self._sale_id)
        lost = [*map(FailedOrder.lost, orders), *unreadable]
        persisted = await find_persisted(connection, [order.order_id for order in lost])
        for order in lost:
            if order.order_id not in persisted:
                await insert_dead_letter(connection, order, now, stock_lost=True)
                result.dead_lettered[order.order_id] = order.error

    def _count(self, result: PersistResult) -> None:
        counts = {"stored": result.stored, "duplicate": result.duplicates, "refused": len(result.refused)}
        for word, count in counts.items():
            if count:
                metrics.WRITTEN_ORDERS.labels(word).inc(count)
        for order_id, reason in result.dead_lettered.items():
            metrics.WRITTEN_ORDERS.labels("dead_lettered").inc()
            _logger.error("dead-lettered an order", extra={"order_id": str(order_id), "reason": reason})


def _decode(entries: Sequence[Entry], sale_id: str) -> tuple[list[StreamedOrder], list[FailedOrder]]:
    orders, unreadable = [], []
    for entry in entries:
        for field, payload in entry.orders:
            try:
                order = decode_accepted(payload)
                if order.order_id.bytes != field:
                    raise ValueError("its order id is not the one that the entry names")
                orders.append(StreamedOrder(order, entry.id, payload))
            except (msgspec.MsgspecError, ValueError) as error:
                order_id = UUID(bytes=field) if len(field) == 16 else UUID(int=entry.id.ms << 64 | entry.id.seq)
                unreadable.append(FailedOrder.unreadable(order_id, sale_id, payload, entry.id, str(error)))
    return orders, unreadable
