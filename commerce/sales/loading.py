"""Loads a sale into Redis from Postgres and the stream, to open the sale or to rebuild it.

The steps make a load correct while orders, releases and stock changes continue:

1. Raise the sale's epoch and commit it. From then on no release or stock change can be marked as applied to the
   previous load (the mark checks the epoch under a lock), so unmarked ones are applied to the new load.
2. Unload the sale: orders get `not_ready`, so nothing enters the stream.
3. Read the stream first and Postgres second. The writer moves orders from the stream to Postgres, so each order is read
   at least once, and it is counted once by its id.
4. Count releases and stock changes that are too old for Redis to apply (parked, or about to be). Whatever the previous
   load had of them is gone, and no worker can apply them to the new one.
5. Restore what the wait-list offers and no order has taken. What is left of SKUs for which somebody waits is held back.
6. Compute and stage stock, limits and keys, and make them visible in one step. Then mark the changes of step 4 and the
   offers of step 5 in the transaction that ends the load. If that transaction is not reached, the sale is loaded again
   from step 1.
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
from commerce.kernel.coupon_skus import is_first_order_sku
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.stream_payload import AcceptedOrder, decode_accepted
from commerce.sales import store
from commerce.sales.errors import LoadInProgress, NoSuchSale, ServerBehind
from commerce.sales.model import Sale, SaleState
from lua import EntryId, KeyRecord, LoadOutcome, SaleKeys, SaleTerms

_logger = logging.getLogger(__name__)
REPORT_WAIT_S = 1.0
"""Time in which every gateway has noted the newest entry that it has seen"""
_REBUILD_CONSUMER = "rebuild"
_ORPHANS_PER_CLAIM = 100


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of a load.

    `waiting_orders` counts orders that were still in the stream, `resolved_jobs` the releases and stock changes that
    were too old for Redis. `units_free` are of products and coupons.
    """

    sale_id: str
    epoch: int
    skus: int
    units_free: int
    waiting_orders: int
    resolved_jobs: int


@dataclass(slots=True)
class _LoadState:
    """The computed content of a load, and the expired jobs that it counts or refuses.

    `stock` maps SKUs to free units, `bought` maps `user NUL sku` to units, `records` are the keys of the last two days,
    `newest` is the newest known entry. `held_back` and `offers` are of the wait-list, with the ids of all its offers.
    """

    stock: dict[str, int]
    bought: dict[bytes, int]
    records: list[tuple[str, str, KeyRecord]]
    newest: EntryId
    releases: list[UUID] = field(default_factory=list)
    changes: list[UUID] = field(default_factory=list)
    refused: list[UUID] = field(default_factory=list)
    held_back: dict[str, int] = field(default_factory=dict)
    offers: dict[bytes, int] = field(default_factory=dict)
    offer_ids: list[UUID] = field(default_factory=list)


def terms_of(sale: Sale) -> SaleTerms:
    """Return the terms of a sale that Redis needs."""
    closes_ms = None if sale.closes_at is None else to_ms(sale.closes_at)
    has_wait_list = sale.has_wait_list and sale.state is not SaleState.CLOSED
    return SaleTerms(sale.epoch, sale.generation, sale.state, to_ms(sale.opens_at), closes_ms, has_wait_list)


async def load_sale(db: Database, redis: Redis, clock: Clock, sale_id: str, *, if_complete: bool = False) -> LoadReport:
    """Load a sale that was opened before.

    With `if_complete` a sale that was loaded before is loaded only on a server that has all orders which were seen:
    what others lack is lost by a load, and staff decide about that. Raises `ServerBehind` then.
    Raises `NoSuchSale` if it never was, `LoadInProgress` if another process loads it, and redis's errors.
    """
    keys = SaleKeys(sale_id)
    async with load_lock(db, sale_id) as connection:
        await lua.check_writable(redis)  # the epoch is raised for nothing if the server takes no writes
        if if_complete:
            await _check_complete(connection, redis, clock, sale_id)
        if not await store.begin_load(connection, sale_id):
            raise NoSuchSale(f"there is no opened sale {sale_id!r}")
        failpoint("load.after_begin")
        await lua.unload(redis, keys, clock.now_ms() // DAY_MS)
        expired_before = from_ms(await lua.dedup_horizon_ms(redis))
        streamed = [(entry, order) async for entry, order in _read_stream(redis, keys)]
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await store.allow_long_statements(connection)
            # The terms are those of the snapshot: a limit that is newer than the counts would miss earlier purchases.
            sale = await store.get(connection, sale_id)
            assert sale is not None
            state = await _compute_state(connection, sale_id, streamed, clock)
            await _include_expired_jobs(connection, sale_id, expired_before, state)
            _clamp_negative_stock(sale_id, state.stock)
            await _restore_offers(connection, sale, streamed, state)
        await lua.restore_key_records(redis, keys, state.records)
        failpoint("load.before_load")
        outcome = await lua.load(
            *(redis, keys, terms_of(sale), state.stock.items(), state.bought.items(), state.newest),
            *(state.held_back.items(), state.offers.items()),
        )
        if outcome is LoadOutcome.LOADED_BEFORE:
            raise LoadInProgress(f"cannot load {sale_id}: another process loaded it meanwhile; check it, then retry")
        await _end_load(connection, sale, state, clock, expired_before)
    await _make_orphans_claimable(redis, keys)
    units_free = sum(units for sku, units in state.stock.items() if not is_first_order_sku(sku))
    resolved = len(state.releases) + len(state.changes) + len(state.refused)
    return LoadReport(sale_id, sale.epoch, len(state.stock), units_free, len(streamed), resolved)


async def _check_complete(connection: Connection, redis: Redis, clock: Clock, sale_id: str) -> None:
    """Raise `ServerBehind` if the server lacks orders of a sale that was loaded before."""
    sale, keys = await store.get(connection, sale_id), SaleKeys(sale_id)
    [load] = await lua.read_load_states(redis, [keys])
    if sale is None or sale.loaded_epoch == 0 or (load.epoch and load.is_adopted):
        return
    await clock.sleep(REPORT_WAIT_S)
    required = await store.read_newest_entry(connection, sale_id)
    actual = (await lua.read_position(redis, keys)).last_entry
    if actual < required:
        raise ServerBehind(
            f"cannot load {sale_id}: Redis has {actual}, and {required} was seen; see `floodgate rebuild`"
        )


async def _end_load(
    connection: Connection, sale: Sale, state: _LoadState, clock: Clock, expired_before: datetime
) -> None:
    now = from_ms(clock.now_ms())
    async with connection.transaction():
        if await store.end_load(connection, sale):
            await store.mark_expired_applied(connection, state.releases, state.changes, sale.epoch, now)
            await store.refuse_expired_reacquires(connection, sale.sale_id, expired_before, now)
            await store.mark_offers_restored(connection, state.offer_ids, sale.epoch, now)
            await store.refuse_expired_changes(connection, state.refused, now, "fewer units were free at the load")


async def _make_orphans_claimable(redis: Redis, keys: SaleKeys) -> None:
    """Let writers claim the entries that are neither pending nor new.

    They become pending as if a writer had read them and died.
    """
    while orphans := await lua.claim_orphans(redis, keys, _REBUILD_CONSUMER, _ORPHANS_PER_CLAIM, idle_ms=DAY_MS):
        _logger.warning("found stream entries that were neither pending nor new", extra={"entries": len(orphans)})


@asynccontextmanager
async def load_lock(db: Database, sale_id: str) -> AsyncIterator[Connection]:
    """Keep other processes from loading or adopting the sale. Raises `LoadInProgress` if one does."""
    async with db.connection() as connection, store.load_lock(connection, sale_id) as is_held:
        if not is_held:
            raise LoadInProgress(f"cannot load {sale_id}: another process is loading it; retry in a moment")
        yield connection


async def _read_stream(redis: Redis, keys: SaleKeys) -> AsyncIterator[tuple[EntryId, AcceptedOrder]]:
    async for entry in lua.iter_stream(redis, keys):
        for order_id, payload in entry.orders:
            try:
                yield entry.id, decode_accepted(payload)
            except msgspec.MsgspecError as error:
                _logger.error(
                    "cannot read an order in the stream", extra={"order_id": order_id.hex(), "reason": str(error)}
                )


async def _compute_state(
    connection: Connection, sale_id: str, streamed: Sequence[tuple[EntryId, AcceptedOrder]], clock: Clock
) -> _LoadState:
    since = from_ms(clock.now_ms() - 2 * DAY_MS)
    rows = await store.compute_free_units(connection, sale_id)
    stock = {sku: free for sku, free, _ in rows}
    limited = {sku for sku, _, limit in rows if limit}
    bought: dict[bytes, int] = defaultdict(int, await store.compute_bought_units(connection, sale_id))
    records = await store.read_recent_keys(connection, sale_id, since)
    newest = await store.read_newest_entry(connection, sale_id)
    persisted = await store.find_persisted(connection, [order.order_id for _, order in streamed])
    for entry, order in streamed:
        newest = max(newest, entry)
        if order.order_id in persisted:
            continue
        record = KeyRecord(order.order_id, order.body_digest, order.total_minor, entry)
        records.append((order.user_id, order.idempotency_key, record))
        for sku, units in order.units().items():
            stock[sku] -= units
            if sku in limited:
                bought[lua.buyer_field(order.user_id, sku)] += units
    return _LoadState(stock, bought, records, newest)


async def _include_expired_jobs(
    connection: Connection, sale_id: str, created_before: datetime, state: _LoadState
) -> None:
    """Count releases and stock changes that Redis no longer applies. Stock is only removed if it is free."""
    for release in await store.list_expired_releases(connection, sale_id, created_before):
        for sku, units in release.units.items():
            if sku in state.stock:
                state.stock[sku] += units - release.written_off.get(sku, 0)
            purchase = lua.buyer_field(release.user_id, sku)
            if state.bought.get(purchase, 0) > units:
                state.bought[purchase] -= units
            else:
                state.bought.pop(purchase, None)
        state.releases.append(release.release_id)
    for change in await store.list_expired_changes(connection, sale_id, created_before):
        if change.delta > 0 or state.stock[change.sku] + change.delta >= 0:
            state.stock[change.sku] += change.delta
            state.changes.append(change.change_id)
        else:
            state.refused.append(change.change_id)


async def _restore_offers(
    connection: Connection, sale: Sale, streamed: Sequence[tuple[EntryId, AcceptedOrder]], state: _LoadState
) -> None:
    """Move what the wait-list offers out of the stock, and hold back the rest of awaited SKUs."""
    offers = await store.list_open_offers(connection, sale.sale_id)
    left = {(offer.user_id, offer.sku): offer.units for offer in offers}
    after = {(offer.user_id, offer.sku): offer.after for offer in offers}
    persisted = await store.find_persisted(connection, [order.order_id for _, order in streamed] if offers else [])
    for entry, order in streamed:
        for sku, units in order.units().items() if order.order_id not in persisted else ():
            if (holder := (order.user_id, sku)) in left and entry > after[holder]:
                left[holder] -= units
    for (user_id, sku), units in left.items():
        restored = min(units, state.stock.get(sku, 0))
        if restored > 0:
            state.stock[sku] -= restored
            state.offers[lua.buyer_field(user_id, sku)] = restored
    state.offer_ids = [offer.offer_id for offer in offers]
    if terms_of(sale).has_wait_list:
        for sku in await store.list_awaited_skus(connection, sale.sale_id):
            if units := state.stock.get(sku, 0):
                state.held_back[sku], state.stock[sku] = units, 0


def _clamp_negative_stock(sale_id: str, stock: dict[str, int]) -> None:
    for sku, free in stock.items():
        if free < 0:
            _logger.error(
                "more units were sold than there were", extra={"sale_id": sale_id, "sku": sku, "units": -free}
            )
            stock[sku] = 0
