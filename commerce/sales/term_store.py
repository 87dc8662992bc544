"""Rows of what promotions, coupons and freight change in the terms of a sale."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from commerce.kernel.coupon_skus import coupon_sku
from commerce.kernel.postgres import Connection
from commerce.sales.store import queries


async def set_freight_template(connection: Connection, sale_id: str, name: str | None) -> None:
    """Set the freight template of a sale that exists, and raise its generation."""
    await connection.execute(queries.set_freight_template, sale_id, name)


async def list_freight_mismatches(connection: Connection, name: str, currency: str, count: int) -> list[str]:
    """List sales that use a freight template and have another currency."""
    return [row["sale_id"] for row in await connection.fetch(queries.list_freight_mismatches, name, currency, count)]


async def raise_generations(
    connection: Connection, name: str, now: datetime, actor: str, detail: dict[str, Any]
) -> list[str]:
    """Raise and log the generation of the sales of a freight template that are not closed.

    Returns their ids.
    """
    rows = await connection.fetch(queries.raise_generations, name, now, actor, orjson.dumps(detail).decode())
    return [row["sale_id"] for row in rows]


async def read_item_prices(connection: Connection, sale_id: str, skus: Sequence[str]) -> dict[str, int]:
    """Read the prices of products in a sale, in minor units. SKUs that it does not offer are left out."""
    return {row["sku"]: row["price_minor"] for row in await connection.fetch(queries.read_item_prices, sale_id, skus)}


async def read_lowest_price(connection: Connection, sale_id: str) -> dict[str, int]:
    """Read the price of the cheapest product of a sale. A sale without items has none."""
    return {row["sku"]: row["price_minor"] for row in await connection.fetch(queries.read_lowest_price, sale_id)}


async def list_coupons_of_promotion(connection: Connection, sale_id: str, promotion_id: str) -> list[str]:
    """List the codes of the first ten coupons of a promotion."""
    return [row["code"] for row in await connection.fetch(queries.list_coupons_of_promotion, sale_id, promotion_id)]


async def insert_first_order_item(connection: Connection, sale_id: str, code: str, units: int, generation: int) -> bool:
    """Add the item that first orders with a promotion take, one per user. False if the sale has it."""
    row = await connection.fetchrow(queries.insert_first_order_item, sale_id, coupon_sku(code), units, generation)
    return row is not None


async def delete_first_order_item(connection: Connection, sale_id: str, code: str) -> None:
    """Delete the item of a draft's promotion, if it has one."""
    await connection.execute(queries.delete_first_order_item, sale_id, coupon_sku(code))
