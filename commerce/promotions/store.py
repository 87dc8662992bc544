"""Rows of promotions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.promotions.model import Promotion, PromotionClass, Rule

queries = load_queries(__package__, promotions=Promotion.__struct_fields__)


async def insert_promotion(connection: Connection, promotion: Promotion, generation: int, now: datetime) -> None:
    """Store a new promotion, whose id is free."""
    await connection.execute(
        queries.insert_promotion,
        promotion.sale_id,
        promotion.promotion_id,
        promotion.label,
        promotion.promotion_class,
        *_terms(promotion),
        generation,
        now,
    )


async def update_promotion(connection: Connection, promotion: Promotion, generation: int, now: datetime) -> None:
    """Store changed terms; the class stays."""
    await connection.execute(
        queries.update_promotion,
        promotion.sale_id,
        promotion.promotion_id,
        promotion.label,
        *_terms(promotion),
        generation,
        now,
    )


async def delete_promotion(connection: Connection, sale_id: str, promotion_id: str) -> None:
    await connection.execute(queries.delete_promotion, sale_id, promotion_id)


async def count_promotions(connection: Connection, sale_id: str) -> int:
    return int(await connection.fetchval(queries.count_promotions, sale_id))


async def get_promotion(connection: Connection, sale_id: str, promotion_id: str) -> Promotion | None:
    row = await connection.fetchrow(queries.get_promotion, sale_id, promotion_id)
    return None if row is None else _from_row(row)


async def list_promotions(connection: Connection, sale_id: str, after: str, count: int) -> list[Promotion]:
    """List promotions of a sale by id."""
    return [_from_row(row) for row in await connection.fetch(queries.list_promotions, sale_id, after, count)]


async def list_if_changed(connection: Connection, sale_id: str, generation: int) -> list[Promotion]:
    """List all promotions of a sale if any of them has changed after a generation, else none."""
    return [_from_row(row) for row in await connection.fetch(queries.list_if_changed, sale_id, generation)]


def _terms(promotion: Promotion) -> tuple[Any, ...]:
    return (
        msgspec.json.encode(promotion.rule).decode(),
        promotion.skus,
        promotion.starts_at,
        promotion.ends_at,
        promotion.new_customers_only,
        promotion.enabled,
    )


def _from_row(row: Any) -> Promotion:
    # SKUs may be thousands, and were checked when they were stored. A rule may be of a newer version.
    rule = msgspec.json.decode(row["rule"], type=Rule)
    skus = None if row["skus"] is None else tuple(row["skus"])
    return Promotion(**{**row, "rule": rule, "skus": skus, "promotion_class": PromotionClass(row["promotion_class"])})
