"""Rows of sales, items and stock changes, and the queries that a load needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection, session_lock
from commerce.kernel.sql import load_queries
from commerce.sales.model import (
    CouponTerms,
    ItemInput,
    ItemTerms,
    Sale,
    SaleInput,
    SaleItem,
    SaleState,
    StockChange,
    StockChangeInput,
)
from lua import EntryId, KeyRecord, Position, buyer_field

queries = load_queries(__package__)
_LOAD_TIMEOUT_S = 600  # a load reads all orders of a sale


class ExpiredRelease(NamedTuple):
    """A release that Redis no longer knows as applied or not; `units` and `written_off` map SKUs to units."""

    release_id: UUID
    user_id: str
    units: dict[str, int]
    written_off: dict[str, int]


class ExpiredChange(NamedTuple):
    """A stock change that Redis no longer knows as applied or not."""

    change_id: UUID
    sku: str
    delta: int


class ListPrice(NamedTuple):
    """The list price of a variant in minor units, and the status of its product."""

    amount: int
    currency: str
    product_status: str


class OpenOffer(NamedTuple):
    """Units of the wait-list that are offered to a user, as far as stored orders have left them.

    An order has taken from the offer if its stream entry is after `after`.
    """

    offer_id: UUID
    user_id: str
    sku: str
    units: int
    after: EntryId


def _sale(row: Any) -> Sale:
    return Sale(**{**row, "state": SaleState(row["state"])})


async def insert(connection: Connection, sale: SaleInput, now: datetime) -> bool:
    """Insert a draft. Returns False if the id is taken."""
    values = (sale.sale_id, sale.title, sale.currency, sale.opens_at, sale.closes_at, sale.pay_within_s, now)
    return bool(await connection.fetchval(queries.insert_sale, *values))


async def get(connection: Connection, sale_id: str) -> Sale | None:
    row = await connection.fetchrow(queries.get_sale, sale_id)
    return _sale(row) if row else None


async def lock(connection: Connection, sale_id: str) -> Sale | None:
    """Read a sale and lock its row until the transaction ends."""
    row = await connection.fetchrow(queries.lock_sale, sale_id)
    return _sale(row) if row else None


async def list_after(connection: Connection, sale_id: str, count: int, drafts: bool) -> list[Sale]:
    return [_sale(row) for row in await connection.fetch(queries.list_sales, sale_id, count, drafts)]


async def list_open_of_product(connection: Connection, product_id: str, count: int) -> list[str]:
    """List open and paused sales that sell a variant of a product."""
    rows = await connection.fetch(queries.list_open_of_product, product_id, count)
    return [row["sale_id"] for row in rows]


async def list_out_of_sync(connection: Connection) -> list[Sale]:
    return [_sale(row) for row in await connection.fetch(queries.list_out_of_sync)]


async def set_state(connection: Connection, sale_id: str, state: SaleState) -> None:
    await connection.execute(queries.set_state, sale_id, state)


async def mark_published(connection: Connection, sale: Sale) -> None:
    await connection.execute(queries.mark_published, sale.sale_id, sale.epoch, sale.generation)


async def increase_generation(connection: Connection, sale_id: str) -> int:
    return int(await connection.fetchval(queries.increase_generation, sale_id))


async def log(
    connection: Connection, sale_id: str, now: datetime, actor: str, action: str, detail: dict[str, Any]
) -> None:
    await connection.execute(queries.log, sale_id, now, actor, action, orjson.dumps(detail, default=str).decode())


async def read_list_prices(connection: Connection, skus: Sequence[str]) -> dict[str, ListPrice]:
    """Read the list prices of variants by SKU. Unknown SKUs are left out."""
    rows = await connection.fetch(queries.read_list_prices, list(skus))
    return {row["sku"]: ListPrice(row["price_minor"], row["currency"], row["status"]) for row in rows}


async def put_items(
    connection: Connection, sale_id: str, items: Sequence[tuple[str, ItemInput]], generation: int
) -> None:
    """Insert or replace items of a sale, each SKU once. Without a price the list price is used."""
    await connection.execute(
        queries.put_items,
        sale_id,
        [sku for sku, _ in items],
        [item.price for _, item in items],
        [item.limit_per_user for _, item in items],
        [item.units for _, item in items],
        generation,
    )


async def change_item(
    connection: Connection,
    sale_id: str,
    sku: str,
    price: int,
    limit: int | None,
    generation: int,
    units: int | None = None,
) -> None:
    """Set the terms of an item, and with `units` its stock at opening."""
    await connection.execute(queries.change_item, sale_id, sku, price, limit, generation, units)


async def get_item(connection: Connection, sale_id: str, sku: str) -> SaleItem | None:
    row = await connection.fetchrow(queries.get_item, sale_id, sku)
    return SaleItem(**row) if row else None


async def has_item(connection: Connection, sale_id: str, sku: str) -> bool:
    """Tell whether a sale has a product or coupon with this SKU."""
    return bool(await connection.fetchval(queries.has_item, sale_id, sku))


async def list_items(connection: Connection, sale_id: str, after: str, count: int) -> list[SaleItem]:
    return [SaleItem(**row) for row in await connection.fetch(queries.list_items, sale_id, after, count)]


async def list_changed_items(
    connection: Connection, sale_id: str, generation: int, after: str, count: int
) -> list[tuple[str, ItemTerms]]:
    """List products that changed after a generation as (sku, terms)."""
    rows = await connection.fetch(queries.list_changed_items, sale_id, generation, after, count)
    return [(sku, ItemTerms(*terms)) for sku, *terms in rows]


async def list_changed_coupons(connection: Connection, sale_id: str, generation: int) -> dict[str, CouponTerms]:
    """List coupons that changed after a generation, by code."""
    rows = await connection.fetch(queries.list_changed_coupons, sale_id, generation)
    return {row["code"]: CouponTerms(row["promotion_id"], row["user_limit"], row["issued"]) for row in rows}


async def insert_change(
    connection: Connection,
    change_id: UUID,
    sale_id: str,
    change: StockChangeInput,
    actor: str,
    now: datetime,
    lease_until: datetime,
) -> bool:
    """Insert a pending change, whose job is claimed until `lease_until`.

    Returns False if its id exists already."""
    values = change_id, sale_id, change.sku, change.delta, change.reason, actor, now, lease_until
    return await connection.fetchval(queries.insert_change, *values) is not None


async def get_change(connection: Connection, change_id: UUID) -> StockChange | None:
    return (await get_changes(connection, [change_id])).get(change_id)


async def get_changes(connection: Connection, change_ids: Sequence[UUID]) -> dict[UUID, StockChange]:
    rows = await connection.fetch(queries.get_changes, change_ids)
    return {row["change_id"]: StockChange(**row) for row in rows}


async def list_changes(connection: Connection, sale_id: str, count: int) -> list[StockChange]:
    return [StockChange(**row) for row in await connection.fetch(queries.list_changes, sale_id, count)]


async def mark_change_applied(connection: Connection, change_id: UUID, now: datetime, epoch: int, seq: int) -> bool:
    """Mark a change as applied in Redis.

    Returns False if a newer load has begun; the row then stays pending and is applied to that load.
    """
    return int(await connection.fetchval(queries.mark_change_applied, change_id, now, epoch, seq)) == 1


async def refuse_change(connection: Connection, change_id: UUID, now: datetime, epoch: int, reason: str) -> bool:
    """Mark a change as refused by Redis.

    Returns False if a newer load has begun; the row then stays pending and is applied to that load.
    """
    return int(await connection.fetchval(queries.refuse_change, change_id, now, epoch, reason)) == 1


def load_lock(connection: Connection, sale_id: str) -> AbstractAsyncContextManager[bool]:
    """Hold the lock for loading a sale. Yields False if another session holds it."""
    return session_lock(connection, queries.lock_load, queries.unlock_load, sale_id)


async def begin_load(connection: Connection, sale_id: str) -> bool:
    """Raise the epoch. Returns False if the sale was never opened."""
    return str(await connection.execute(queries.begin_load, sale_id)) == "UPDATE 1"


async def end_load(connection: Connection, sale: Sale) -> bool:
    """Mark a load as finished. Returns False if a newer load has begun."""
    return str(await connection.execute(queries.end_load, sale.sale_id, sale.epoch, sale.generation)) == "UPDATE 1"


async def list_expired_releases(connection: Connection, sale_id: str, before: datetime) -> list[ExpiredRelease]:
    """List releases that Redis no longer applies: parked ones, and those created before a moment."""
    rows = await connection.fetch(queries.list_expired_releases, sale_id, before, timeout=_LOAD_TIMEOUT_S)
    return [
        ExpiredRelease(row["release_id"], row["user_id"], orjson.loads(row["units"]), orjson.loads(row["written_off"]))
        for row in rows
    ]


async def list_expired_changes(connection: Connection, sale_id: str, before: datetime) -> list[ExpiredChange]:
    """List unapplied stock changes that Redis no longer applies, oldest first."""
    rows = await connection.fetch(queries.list_expired_changes, sale_id, before, timeout=_LOAD_TIMEOUT_S)
    return [ExpiredChange(row["change_id"], row["sku"], row["delta"]) for row in rows]


async def mark_expired_applied(
    connection: Connection, releases: Sequence[UUID], changes: Sequence[UUID], epoch: int, now: datetime
) -> None:
    """Mark releases and stock changes as applied that the load has counted."""
    await connection.execute(queries.mark_expired_releases_applied, releases, epoch, now)
    await connection.execute(queries.mark_expired_changes_applied, changes, epoch, now)


async def refuse_expired_changes(connection: Connection, changes: Sequence[UUID], now: datetime, reason: str) -> None:
    await connection.execute(queries.refuse_expired_changes, changes, now, reason)


async def refuse_expired_reacquires(connection: Connection, sale_id: str, before: datetime, now: datetime) -> None:
    await connection.execute(queries.refuse_expired_reacquires, sale_id, before, now)


async def list_open_offers(connection: Connection, sale_id: str) -> list[OpenOffer]:
    """List the offers of the wait-list; those that stored orders have taken have no units left."""
    rows = await connection.fetch(queries.list_open_offers, sale_id, timeout=_LOAD_TIMEOUT_S)
    return [OpenOffer(row["offer_id"], row["user_id"], row["sku"], max(0, row["units"]), _entry(row)) for row in rows]


async def list_awaited_skus(connection: Connection, sale_id: str) -> set[str]:
    """Return the SKUs for which somebody is on the wait-list."""
    return {row["sku"] for row in await connection.fetch(queries.list_awaited_skus, sale_id)}


async def mark_offers_restored(connection: Connection, offers: Sequence[UUID], epoch: int, now: datetime) -> None:
    """Mark offers that a load has restored as made in that load, with their full time."""
    await connection.execute(queries.mark_offers_restored, offers, epoch, now)


async def set_wait_list(connection: Connection, sale_id: str, is_on: bool) -> None:
    """Set whether the sale has a wait-list, which is one of its terms."""
    await connection.execute(queries.set_wait_list, sale_id, is_on)


async def allow_long_statements(connection: Connection) -> None:
    """Raise the statement timeout until the transaction ends, because a load reads all orders of a sale."""
    await connection.execute(queries.allow_long_statements)


async def compute_free_units(connection: Connection, sale_id: str) -> list[tuple[str, int, int]]:
    """Compute (sku, free units, limit or 0) from rows, without orders that are only in the stream."""
    rows = await connection.fetch(queries.compute_free_units, sale_id, timeout=_LOAD_TIMEOUT_S)
    return [(row["sku"], row["free"], row["user_limit"]) for row in rows]


async def compute_bought_units(connection: Connection, sale_id: str) -> dict[bytes, int]:
    """Compute reserved units of SKUs with a limit, by `user NUL sku`."""
    rows = await connection.fetch(queries.compute_bought_units, sale_id, timeout=_LOAD_TIMEOUT_S)
    return {buyer_field(row["user_id"], row["sku"]): row["units"] for row in rows}


async def read_recent_keys(connection: Connection, sale_id: str, since: datetime) -> list[tuple[str, str, KeyRecord]]:
    """Read (user, key, record) of orders accepted since a moment."""
    rows = await connection.fetch(queries.read_recent_keys, sale_id, since, timeout=_LOAD_TIMEOUT_S)
    return [
        (
            row["user_id"],
            row["idempotency_key"],
            KeyRecord(row["order_id"], row["body_digest"], row["total_minor"], _entry(row)),
        )
        for row in rows
    ]


async def raise_observed_entry(connection: Connection, sale_id: str, entry: EntryId) -> None:
    """Note an entry that a gateway has seen; a lower one changes nothing."""
    await connection.execute(queries.raise_observed_entry, sale_id, from_ms(entry.ms), entry.seq)


async def read_newest_entry(connection: Connection, sale_id: str) -> EntryId:
    """Return the newest stream entry whose orders are stored or dead-lettered, or that a gateway has seen."""
    row = await connection.fetchrow(queries.read_observed_entry, sale_id)
    observed = _entry(row) if row else EntryId(0, 1)
    row = await connection.fetchrow(queries.read_last_entry, sale_id, from_ms(observed.ms), timeout=_LOAD_TIMEOUT_S)
    return max(observed, _entry(row) if row else observed)


async def list_closed(connection: Connection, sale_ids: Sequence[str]) -> set[str]:
    """Return those of the sales that are closed."""
    return {row["sale_id"] for row in await connection.fetch(queries.list_closed, list(sale_ids))}


async def read_required_position(connection: Connection, sale_id: str, counted_epoch: int) -> Position:
    """Return the position that a server must have: the newest entry and the newest applied change."""
    last_seq = await connection.fetchval(queries.read_last_change_seq, sale_id, counted_epoch, timeout=_LOAD_TIMEOUT_S)
    return Position(await read_newest_entry(connection, sale_id), last_seq)


async def stop_writers(connection: Connection, sale_id: str) -> None:
    """Wait for the commits of writers, and let none store orders of the sale until the transaction ends."""
    await connection.execute(queries.stop_writers, sale_id)


async def begin_adoption(connection: Connection, sale_id: str) -> int:
    """Raise the epoch and return it. Call after `stop_writers` in its transaction."""
    return int(await connection.fetchval(queries.begin_adoption, sale_id))


async def read_epoch(connection: Connection, sale_id: str) -> int:
    """Read the epoch and keep it from being raised until the transaction ends."""
    await connection.execute(queries.share_epoch, sale_id)
    return int(await connection.fetchval(queries.read_epoch, sale_id))


async def find_persisted(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the orders that are stored or dead-lettered."""
    return {
        row["order_id"] for row in await connection.fetch(queries.find_persisted, order_ids, timeout=_LOAD_TIMEOUT_S)
    }


def _entry(row: Any) -> EntryId:
    return EntryId(to_ms(row["accepted_at"]), row["entry_seq"])
