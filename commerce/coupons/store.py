"""Rows of coupons and of their items."""

from __future__ import annotations

from datetime import datetime

from commerce.coupons.model import CouponInput, StoredCoupon
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


async def count_coupons(connection: Connection, sale_id: str) -> int:
    return int(await connection.fetchval(queries.count_coupons, sale_id))


async def insert(
    connection: Connection, sale_id: str, coupon: CouponInput, units: int, generation: int, now: datetime
) -> None:
    """Insert a coupon and its item with units at the opening."""
    await connection.execute(
        queries.insert_coupon,
        sale_id,
        coupon.code,
        coupon.promotion_id,
        coupon.issued,
        coupon.limit_per_user,
        units,
        generation,
        now,
    )


async def list_coupons(connection: Connection, sale_id: str) -> list[StoredCoupon]:
    """List all coupons of a sale by code."""
    return [StoredCoupon(**row) for row in await connection.fetch(queries.list_coupons, sale_id, None)]


async def get(connection: Connection, sale_id: str, code: str) -> StoredCoupon | None:
    row = await connection.fetchrow(queries.list_coupons, sale_id, code)
    return StoredCoupon(**row) if row else None


async def change(connection: Connection, sale_id: str, code: str, promotion_id: str, *, issued: bool) -> None:
    await connection.execute(queries.change_coupon, sale_id, code, promotion_id, issued)


async def set_initial_units(connection: Connection, sale_id: str, code: str, units: int) -> None:
    """Set the units at the opening, of a draft."""
    await connection.execute(queries.set_initial_units, sale_id, code, units)
