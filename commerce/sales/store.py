"""The rows of sales, their items and their stock changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from commerce.kernel.clock import to_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.sales.model import ItemInput, Sale, SaleInput, SaleItem, SaleState, StockChange, StockChangeInput
from lua import EntryId, KeyRecord, idempotency_field

queries = load_queries(__package__)
_LONG_S = 600  # a load reads all orders of a sale


class ExpiredRelease(NamedTuple):
    """Units that were to go back, and whether they did Redis can no longer tell."""

    release_id: UUID
    user_id: str
    units: dict[str, int]


class ExpiredChange(NamedTuple):
    """The same of a stock change."""

    change_id: UUID
    sku: str
    delta: int


def _sale(row: Any) -> Sale:
    return Sale(**{**row, "state": SaleState(row["state"])})


async def insert(connection: Connection, sale: SaleInput, now: datetime) -> bool:
    """False if the id is taken."""
    return bool(
        await connection.fetchval(
            queries.insert_sale,
            sale.sale_id,
            sale.title,
            sale.currency,
            sale.opens_at,
            sale.closes_at,
            sale.pay_within_s,
            now,
        )
    )


async def get(connection: Connection, sale_id: str) -> Sale | None:
    row = await connection.fetchrow(queries.get_sale, sale_id)
    return _sale(row) if row else None


async def lock(connection: Connection, sale_id: str) -> Sale | None:
    """The sale, locked until the transaction ends."""
    row = await connection.fetchrow(queries.lock_sale, sale_id)
    return _sale(row) if row else None


async def list_after(connection: Connection, sale_id: str, count: int, drafts: bool) -> list[Sale]:
    return [_sale(row) for row in await connection.fetch(queries.list_sales, sale_id, count, drafts)]


async def unfinished(connection: Connection) -> list[Sale]:
    return [_sale(row) for row in await connection.fetch(queries.unfinished_sales)]


async def set_state(connection: Connection, sale_id: str, state: SaleState) -> None:
    await connection.execute(queries.set_state, sale_id, state)


async def mark_published(connection: Connection, sale: Sale) -> None:
    await connection.execute(queries.mark_published, sale.sale_id, sale.epoch, sale.generation)


async def next_generation(connection: Connection, sale_id: str) -> int:
    return int(await connection.fetchval(queries.next_generation, sale_id))


async def log(
    connection: Connection, sale_id: str, now: datetime, actor: str, action: str, detail: dict[str, Any]
) -> None:
    await connection.execute(queries.log, sale_id, now, actor, action, orjson.dumps(detail, default=str).decode())


async def currencies(connection: Connection, skus: Sequence[str]) -> dict[str, str]:
    """The currency of each of these products that exists."""
    return {row["sku"]: row["currency"] for row in await connection.fetch(queries.products_of, list(skus))}


async def put_items(
    connection: Connection, sale_id: str, items: Sequence[tuple[str, ItemInput]], generation: int
) -> None:
    """Write items of a sale, each SKU once; without a price the product\'s own counts."""
    await connection.execute(
        queries.insert_items,
        sale_id,
        [sku for sku, _ in items],
        [item.price for _, item in items],
        [item.limit_per_user for _, item in items],
        [item.units for _, item in items],
        generation,
    )


async def change_item(
    connection: Connection, sale_id: str, sku: str, price: int, limit: int | None, generation: int
) -> None:
    await connection.execute(queries.change_item, sale_id, sku, price, limit, generation)


async def get_item(connection: Connection, sale_id: str, sku: str) -> SaleItem | None:
    row = await connection.fetchrow(queries.get_item, sale_id, sku)
    return SaleItem(**row) if row else None


async def list_items(connection: Connection, sale_id: str, after: str, count: int) -> list[SaleItem]:
    return [SaleItem(**row) for row in await connection.fetch(queries.list_items, sale_id, after, count)]


async def changed_items(
    connection: Connection, sale_id: str, generation: int, after: str, count: int
) -> list[tuple[str, int, int]]:
    """(sku, price, limit or 0) of items that changed since a generation."""
    rows = await connection.fetch(queries.changed_items, sale_id, generation, after, count)
    return [(row["sku"], row["price_minor"], row["user_limit"]) for row in rows]


async def insert_change(
    connection: Connection, change_id: UUID, sale_id: str, change: StockChangeInput, actor: str, now: datetime
) -> bool:
    """False if the id is there already."""
    return bool(
        await connection.fetchval(
            queries.insert_change, change_id, sale_id, change.sku, change.delta, change.reason, actor, now
        )
    )


async def get_change(connection: Connection, change_id: UUID) -> StockChange | None:
    row = await connection.fetchrow(queries.get_change, change_id)
    return StockChange(**row) if row else None


async def list_changes(connection: Connection, sale_id: str, count: int) -> list[StockChange]:
    return [StockChange(**row) for row in await connection.fetch(queries.list_changes, sale_id, count)]


async def claim_changes(
    connection: Connection, now: datetime, lease_s: int, count: int
) -> list[tuple[StockChange, int]]:
    """Due changes with the number of their attempts, this one included."""
    rows = await connection.fetch(queries.claim_changes, now, lease_s, count)
    return [(StockChange(**{k: v for k, v in row.items() if k != "attempts"}), row["attempts"]) for row in rows]


async def mark_change_applied(connection: Connection, change_id: UUID, now: datetime, epoch: int, seq: int) -> bool:
    """False if a newer load has begun: the row stays pending and is applied to that one."""
    return str(await connection.execute(queries.settle_change, change_id, now, epoch, seq)) == "UPDATE 1"


async def refuse_change(connection: Connection, change_id: UUID, now: datetime, why: str) -> None:
    await connection.execute(queries.refuse_change, change_id, now, why)


async def postpone_change(connection: Connection, change_id: UUID, due: datetime, why: str, park: bool) -> None:
    await connection.execute(queries.postpone_change, change_id, due, why, park)


async def lock_load(connection: Connection, sale_id: str) -> bool:
    """False if another session holds it. The lock lasts until it is given up or the connection ends."""
    return bool(await connection.fetchval(queries.lock_load, sale_id))


async def unlock_load(connection: Connection, sale_id: str) -> None:
    await connection.execute(queries.unlock_load, sale_id)


async def begin_load(connection: Connection, sale_id: str) -> bool:
    """Raise the epoch; False for a sale that was never opened."""
    return str(await connection.execute(queries.begin_load, sale_id)) == "UPDATE 1"


async def end_load(connection: Connection, sale: Sale) -> bool:
    """False if a newer load has begun."""
    return str(await connection.execute(queries.end_load, sale.sale_id, sale.epoch, sale.generation)) == "UPDATE 1"


async def forgotten_releases(connection: Connection, sale_id: str, before: datetime) -> list[ExpiredRelease]:
    """Releases that Redis applies no more: those that are parked, and those made before that time."""
    rows = await connection.fetch(queries.forgotten_releases, sale_id, before, timeout=_LONG_S)
    return [ExpiredRelease(row["release_id"], row["user_id"], orjson.loads(row["units"])) for row in rows]


async def forgotten_changes(connection: Connection, sale_id: str, before: datetime) -> list[ExpiredChange]:
    """The same of stock changes, oldest first."""
    rows = await connection.fetch(queries.forgotten_changes, sale_id, before, timeout=_LONG_S)
    return [ExpiredChange(row["change_id"], row["sku"], row["delta"]) for row in rows]


async def settle_forgotten(
    connection: Connection, releases: Sequence[UUID], changes: Sequence[UUID], epoch: int, now: datetime
) -> None:
    """Mark as applied what a load has counted."""
    await connection.execute(queries.settle_forgotten_releases, releases, epoch, now)
    await connection.execute(queries.settle_forgotten_changes, changes, epoch, now)


async def refuse_forgotten(connection: Connection, changes: Sequence[UUID], now: datetime, why: str) -> None:
    await connection.execute(queries.refuse_forgotten_changes, changes, now, why)


async def refuse_forgotten_retakes(connection: Connection, sale_id: str, before: datetime, now: datetime) -> None:
    await connection.execute(queries.refuse_forgotten_retakes, sale_id, before, now)


async def allow_long_statements(connection: Connection) -> None:
    """For the rest of the transaction: reading all orders of a sale may take longer than a shopper would wait."""
    await connection.execute(queries.allow_long_statements)


async def stock_from_rows(connection: Connection, sale_id: str) -> list[tuple[str, int, int]]:
    """(sku, units free, limit or 0), with only what Postgres knows taken off."""
    rows = await connection.fetch(queries.stock_from_rows, sale_id, timeout=_LONG_S)
    return [(row["sku"], row["free"], row["user_limit"]) for row in rows]


async def bought_from_rows(connection: Connection, sale_id: str) -> dict[bytes, int]:
    """user NUL sku → units, for SKUs with a limit."""
    rows = await connection.fetch(queries.bought_from_rows, sale_id, timeout=_LONG_S)
    return {idempotency_field(row["user_id"], row["sku"]): row["units"] for row in rows}


async def recent_keys(connection: Connection, sale_id: str, since: datetime) -> list[tuple[str, str, KeyRecord]]:
    """(user, key, record) of orders accepted since then."""
    rows = await connection.fetch(queries.recent_keys, sale_id, since, timeout=_LONG_S)
    return [
        (
            row["user_id"],
            row["idempotency_key"],
            KeyRecord(row["order_id"], row["body_digest"], row["total_minor"], _entry(row)),
        )
        for row in rows
    ]


async def last_entry(connection: Connection, sale_id: str) -> EntryId:
    """The newest stream entry whose orders are stored or dead-lettered."""
    row = await connection.fetchrow(queries.last_entry, sale_id, timeout=_LONG_S)
    return _entry(row) if row else EntryId(0, 1)


async def persisted(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these orders are stored, or dead-lettered."""
    return {row["order_id"] for row in await connection.fetch(queries.persisted_of, order_ids, timeout=_LONG_S)}


def _entry(row: Any) -> EntryId:
    return EntryId(to_ms(row["accepted_at"]), row["entry_seq"])
