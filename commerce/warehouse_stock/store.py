"""Rows of stock levels, movements and allotments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.warehouse_stock.model import HeldUnits, ItemAllotment, MovementKind, StockLevel, WarehouseMovement

queries = load_queries(
    __package__, stock_levels=StockLevel.__struct_fields__, stock_movements=WarehouseMovement.__struct_fields__
)
StockKey = tuple[str, str]
"""a SKU and a warehouse"""


class NewMovement(NamedTuple):
    """A movement to record, which changes the units on hand by `delta`."""

    sku: str
    warehouse_id: str
    kind: MovementKind
    delta: int
    movement_id: UUID
    reference: str | None
    reason: str
    actor: str
    moved_at: datetime


class ReturnedStock(NamedTuple):
    """Good units that a warehouse has again; with `is_resold` their sale sells them again."""

    sku: str
    warehouse_id: str
    units: int
    is_resold: bool


def _columns(pairs: Collection[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


async def lock_levels(
    connection: Connection, keys: Collection[StockKey], *, new: Collection[StockKey] = ()
) -> dict[StockKey, StockLevel]:
    """Lock stocks in their sequence and read them, after adding those of `new` that do not exist.

    Others that do not exist, and those whose SKU or warehouse does not, are left out."""
    if new:
        await connection.execute(queries.add_levels, *_columns(new))
    rows = await connection.fetch(queries.lock_levels, *_columns(keys))
    return {(row["sku"], row["warehouse_id"]): StockLevel(**row) for row in rows}


async def move(connection: Connection, movement: NewMovement) -> None:
    """Record a movement and change the stock, which the caller has locked."""
    sku, warehouse_id, kind, delta, movement_id, reference, reason, actor, moved_at = movement
    values = sku, warehouse_id, kind, delta, movement_id, reference, reason, actor, moved_at
    await connection.execute(queries.move, *values)


async def find_movement(connection: Connection, movement_id: UUID, key: StockKey) -> WarehouseMovement | None:
    row = await connection.fetchrow(queries.find_movement, movement_id, *key)
    return WarehouseMovement(**row) if row else None


async def set_warning(connection: Connection, key: StockKey, warn_below: int | None) -> bool:
    """Set the units below which a stock is low. Returns False if they were the same."""
    return str(await connection.execute(queries.set_warning, *key, warn_below)) == "UPDATE 1"


async def list_levels(
    connection: Connection, after: StockKey, sku: str | None, warehouse_id: str | None, count: int, *, low: bool
) -> list[StockLevel]:
    """List stocks by SKU and warehouse, with `low` only those below their warning."""
    query = queries.list_low if low else queries.list_levels
    return [StockLevel(**row) for row in await connection.fetch(query, *after, sku, warehouse_id, count)]


async def count_low(connection: Connection) -> int:
    """Count the stocks below their warning."""
    return int(await connection.fetchval(queries.count_low))


async def list_movements(
    connection: Connection, sku: str, warehouse_id: str | None, before: int, count: int
) -> list[WarehouseMovement]:
    """List movements of a SKU, newest first."""
    rows = await connection.fetch(queries.list_movements, sku, warehouse_id, before, count)
    return [WarehouseMovement(**row) for row in rows]


async def is_kept(connection: Connection, sku: str) -> bool:
    """Tell whether any warehouse keeps a SKU."""
    return bool(await connection.fetchval(queries.is_kept, sku))


async def allot_items(
    connection: Connection, sale_id: str, units: Mapping[str, int], actor: str, now: datetime
) -> None:
    """Allot what items are to sell, by SKU, as far as warehouses have it.

    SKUs that none keeps are left out."""
    if units:
        await connection.execute(queries.allot_items, sale_id, list(units), list(units.values()), actor, now)


async def allot_all_items(connection: Connection, sale_id: str, actor: str, now: datetime) -> None:
    """Allot what the items of a draft are to sell, as `allot_items` does."""
    await connection.execute(queries.allot_all_items, sale_id, actor, now)


async def allot_more(
    connection: Connection, sale_id: str, sku: str, units: int, change_id: UUID, reason: str, actor: str, now: datetime
) -> int:
    """Allot more units to an item, as far as warehouses have them, and return how many are missing.

    An item that is not allotted from warehouses misses none."""
    missing_before = await connection.fetchval(queries.need_more, sale_id, sku, units)
    if missing_before is None:
        return 0
    await connection.execute(queries.allot_units, sale_id, sku, change_id, reason, actor, now)
    return int(await connection.fetchval(queries.read_missing, sale_id, sku)) - int(missing_before)


async def sum_free(connection: Connection, sku: str) -> int:
    """Return the units of a SKU in all warehouses that no sale has."""
    return int(await connection.fetchval(queries.sum_free, sku))


async def forget_items(
    connection: Connection, sale_id: str, sku: str | None, reason: str, actor: str, now: datetime
) -> None:
    """Take back what is allotted to a draft, or to one item of it, which is about to be deleted."""
    await connection.execute(queries.take_back_all, sale_id, sku, reason, actor, now)
    await connection.execute(queries.delete_allotments, sale_id, sku)
    await connection.execute(queries.delete_allotted_items, sale_id, sku)


async def list_allotments(connection: Connection, sale_id: str, after: str, count: int) -> list[ItemAllotment]:
    """List the allotted items of a sale by SKU."""
    return [ItemAllotment(**row) for row in await connection.fetch(queries.list_allotments, sale_id, after, count)]


async def lock_held_units(connection: Connection, items: Collection[tuple[str, str]]) -> list[HeldUnits]:
    """List what warehouses can ship of items (sale, SKU), and lock those whose units are allotted.

    Other items are left out: warehouses do not keep their stock."""
    locked = [(row["sale_id"], row["sku"]) for row in await connection.fetch(queries.lock_items, *_columns(items))]
    if not locked:
        return []
    return [HeldUnits(**row) for row in await connection.fetch(queries.list_held_units, *_columns(locked))]


async def list_unplanned_items(
    connection: Connection, ended_before: datetime, after: tuple[str, str], count: int
) -> list[tuple[str, str]]:
    """List allotted items (sale, SKU) of sales that have ended, with units that no shipment holds."""
    rows = await connection.fetch(queries.list_unplanned_items, ended_before, *after, count)
    return [(row["sale_id"], row["sku"]) for row in rows]


async def return_units(
    connection: Connection,
    order_id: UUID,
    release_id: UUID | None,
    reference: str,
    actor: str,
    now: datetime,
    units: Sequence[ReturnedStock],
) -> None:
    """Record good units of an order in the warehouses that received them, once per `release_id`.

    Items whose units are not allotted are left out. SKU and warehouse occur once with each `is_resold`."""
    if units:
        keys = [(line.sku, line.warehouse_id) for line in units]
        await connection.execute(queries.add_levels_of_kept, *_columns(keys))
        columns = zip(*units, strict=True)
        await connection.execute(queries.return_units, order_id, release_id, reference, actor, now, *map(list, columns))
