"""Loads a sale's stock into Redis from what Postgres and the stream say; used to open a sale and to rebuild one.

How it stays right while everything else goes on:

1. The sale's epoch is raised and committed. From now on nobody can mark a release or stock change as applied to the
   load before (they check the epoch under a lock), so those not marked yet are applied to the new load.
2. The sale is sealed: orders get `not_ready`, so nothing enters the stream any more.
3. The stream is read first and Postgres second: the writer moves orders from the one to the other, so each order is
   seen in at least one of them and counted once, by its id.
4. Releases and stock changes that are too old for Redis to apply (parked, or about to be) are counted here, once: the
   load before is gone with whatever it had of them, and no driver can bring them into the new one.
5. Stock, limits and keys are computed, staged, and made visible in one step; then those releases and changes are marked
   in one transaction with the end of the load. If that is never reached, the sale is loaded again from the start.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec
from redis.asyncio import Redis

import lua
from commerce.kernel.clock import DAY_MS, Clock, from_ms, to_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.stream_payload import AcceptedOrder, decode_accepted
from commerce.sales import store
from commerce.sales.errors import LoadInProgress, NoSuchSale
from commerce.sales.model import Sale
from lua import EntryId, KeyRecord, LoadOutcome, SaleKeys, SaleTerms

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded: SKUs, units free, orders that were still in the stream, and jobs too old for Redis to do."""

    sale_id: str
    epoch: int
    skus: int
    units_free: int
    waiting_orders: int
    resolved_jobs: int


@dataclass(slots=True)
class _LoadState:
    """Units free by SKU, units bought by user and SKU, keys of the last two days, the newest entry that is known; and
    the jobs that Redis has forgotten, which are in these numbers or refused."""

    stock: dict[str, int]
    bought: dict[bytes, int]
    records: list[tuple[str, str, KeyRecord]]
    newest: EntryId
    releases: list[UUID] = field(default_factory=list)
    changes: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)


def terms(sale: Sale) -> SaleTerms:
    """What Redis is told of a sale."""
    closes_ms = None if sale.closes_at is None else to_ms(sale.closes_at)
    return SaleTerms(sale.epoch, sale.generation, sale.state, to_ms(sale.opens_at), closes_ms)


async def load_sale(db: Database, redis: Redis, clock: Clock, sale_id: str) -> LoadReport:
    """Load a sale that was opened before. Raises `LoadInProgress` if another process is at it, and redis's errors."""
    keys = SaleKeys(sale_id)
    async with _only_one(db, sale_id) as connection:
        if not await store.begin_load(connection, sale_id):
            raise NoSuchSale(f"there is no opened sale {sale_id!r}")
        failpoint("load.after_begin")
        await lua.unload(redis, keys, clock.now_ms() // DAY_MS)
        forgotten = from_ms(await lua.dedup_horizon_ms(redis))
        waiting = [(entry, order) async for entry, order in _waiting(redis, keys)]
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await store.allow_long_statements(connection)
            books = await _computed(connection, sale_id, waiting, clock)
            await _count_forgotten(connection, sale_id, forgotten, books)
        _at_least_none(sale_id, books.stock)
        await lua.restore_key_records(redis, keys, books.records)
        sale = await store.get(connection, sale_id)
        assert sale is not None
        failpoint("load.before_load")
        outcome = await lua.load(redis, keys, terms(sale), books.stock.items(), books.bought.items(), books.newest)
        if outcome is LoadOutcome.LOADED_BEFORE:
            raise LoadInProgress(f"{sale_id} was loaded by another process meanwhile: look at it, then load it again")
        await _end(connection, sale, books, clock, forgotten)
    units_free = sum(books.stock.values())
    settled = len(books.releases) + len(books.changes) + len(books.refused)
    return LoadReport(sale_id, sale.epoch, len(books.stock), units_free, len(waiting), settled)


async def _end(connection: Connection, sale: Sale, books: _LoadState, clock: Clock, forgotten: datetime) -> None:
    now = from_ms(clock.now_ms())
    async with connection.transaction():
        if await store.end_load(connection, sale):
            await store.settle_forgotten(connection, books.releases, books.changes, sale.epoch, now)
            await store.refuse_forgotten_retakes(connection, sale.sale_id, forgotten, now)
            await store.refuse_forgotten(connection, books.refused, now, "fewer units were free when it was settled")


@asynccontextmanager
async def _only_one(db: Database, sale_id: str) -> AsyncIterator[Connection]:
    async with db.connection() as connection:
        if not await store.lock_load(connection, sale_id):
            raise LoadInProgress(f"{sale_id} is being loaded by another process: look again in a moment")
        try:
            yield connection
        finally:
            await store.unlock_load(connection, sale_id)


async def _waiting(redis: Redis, keys: SaleKeys) -> AsyncIterator[tuple[EntryId, AcceptedOrder]]:
    async for entry in lua.iter_stream(redis, keys):
        for order_id, payload in entry.orders:
            try:
                yield entry.id, decode_accepted(payload)
            except msgspec.MsgspecError as error:
                _logger.error(
                    "an order in the stream cannot be read", extra={"order": order_id.hex(), "why": str(error)}
                )


async def _computed(
    connection: Connection, sale_id: str, waiting: Sequence[tuple[EntryId, AcceptedOrder]], clock: Clock
) -> _LoadState:
    since = from_ms(clock.now_ms() - 2 * DAY_MS)
    rows = await store.stock_from_rows(connection, sale_id)
    stock = {sku: free for sku, free, _ in rows}
    limited = {sku for sku, _, limit in rows if limit}
    bought: dict[bytes, int] = defaultdict(int, await store.bought_from_rows(connection, sale_id))
    records = await store.recent_keys(connection, sale_id, since)
    newest = await store.last_entry(connection, sale_id)
    persisted = await store.persisted(connection, [order.order_id for _, order in waiting])
    for entry, order in waiting:
        newest = max(newest, entry)
        if order.order_id in persisted:
            continue
        record = KeyRecord(order.order_id, order.body_digest, order.total_minor, entry)
        records.append((order.user_id, order.idempotency_key, record))
        for sku, units in order.units().items():
            stock[sku] -= units
            if sku in limited:
                bought[f"{order.user_id}\0{sku}".encode()] += units
    return _LoadState(stock, bought, records, newest)


async def _count_forgotten(connection: Connection, sale_id: str, before: datetime, books: _LoadState) -> None:
    """Give back and restock what Redis cannot any more. What is to be taken away is taken only from free units."""
    for release in await store.forgotten_releases(connection, sale_id, before):
        for sku, units in release.units.items():
            if sku in books.stock:
                books.stock[sku] += units
            buyer = lua.idempotency_field(release.user_id, sku)
            if books.bought.get(buyer, 0) > units:
                books.bought[buyer] -= units
            else:
                books.bought.pop(buyer, None)
        books.releases.append(release.release_id)
    for change in await store.forgotten_changes(connection, sale_id, before):
        if change.delta > 0 or books.stock[change.sku] + change.delta >= 0:
            books.stock[change.sku] += change.delta
            books.changes.append(change.change_id)
        else:
            books.refused.append(change.change_id)


def _at_least_none(sale_id: str, stock: dict[str, int]) -> None:
    for sku, free in stock.items():
        if free < 0:
            _logger.error("more was sold than there was", extra={"sale": sale_id, "sku": sku, "units": -free})
            stock[sku] = 0
