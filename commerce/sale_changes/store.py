"""Rows of a sale that staff change or delete."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.sales.model import Sale

queries = load_queries(__package__)


class RoomTimes(NamedTuple):
    """When the list of a waiting room closes, and whether it is closed or the whole room has ended."""

    list_closes_at: datetime
    is_listed: bool
    has_ended: bool


class ShippingSetup(NamedTuple):
    """The current rate table, and whether there is any warehouse, and a freight template of the sale."""

    has_warehouses: bool
    has_freight: bool
    table_id: int | None


async def change(connection: Connection, sale: Sale) -> None:
    """Store what staff may change of a sale, and raise its generation."""
    values = sale.title, sale.currency, sale.opens_at, sale.closes_at, sale.pay_within_s
    await connection.execute(queries.change_sale, sale.sale_id, *values)


async def find_priced(connection: Connection, sale_id: str) -> str | None:
    """Return what has amounts in the currency of a sale, `items` or `promotions`; None if nothing has."""
    priced: str | None = await connection.fetchval(queries.find_priced, sale_id)
    return priced


async def find_promotion_of_item(connection: Connection, sale_id: str, sku: str) -> str | None:
    """Return the id of the first promotion that names a SKU, None if none does."""
    promotion_id: str | None = await connection.fetchval(queries.find_promotion_of_item, sale_id, sku)
    return promotion_id


async def has_open_room(connection: Connection, sale_id: str) -> bool:
    return bool(await connection.fetchval(queries.has_open_room, sale_id))


async def find_room(connection: Connection, sale_id: str) -> RoomTimes | None:
    """Read the waiting room of a sale, None if it has none or it is off."""
    row = await connection.fetchrow(queries.find_room, sale_id)
    return RoomTimes(**row) if row else None


async def delete_item(connection: Connection, sale_id: str, sku: str) -> None:
    await connection.execute(queries.delete_item, sale_id, sku)


async def delete_draft(connection: Connection, sale_id: str) -> bool:
    """Delete a draft with all that is its own. Returns True if that had a waiting room."""
    await connection.execute(queries.delete_coupons, sale_id)
    await connection.execute(queries.delete_promotions, sale_id)
    await connection.execute(queries.delete_items, sale_id)
    await connection.execute(queries.delete_wait_list, sale_id)
    await connection.execute(queries.delete_room_list, sale_id)
    had_room = await connection.fetchval(queries.delete_room, sale_id)
    await connection.execute(queries.delete_sale, sale_id)
    return bool(had_room)


async def read_shipping_setup(connection: Connection, sale_id: str) -> ShippingSetup:
    """Read whether the shop has what it ships a sale with. The sale must exist."""
    row = await connection.fetchrow(queries.read_shipping_setup, sale_id)
    assert row is not None
    return ShippingSetup(**row)


async def list_gaps(connection: Connection, sale_id: str, table_id: int | None) -> dict[str, tuple[int, list[str]]]:
    """Return what products of a sale lack: the number of SKUs and the first of them, by kind."""
    rows = await connection.fetch(queries.list_gaps, sale_id, table_id)
    return {row["kind"]: (row["count"], row["skus"]) for row in rows}
