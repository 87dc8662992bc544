"""Rows of list prices: their history, and those that are planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commerce.catalog.model import PlannedPrice, PlanStatus, PriceChange, PriceInput
from commerce.catalog.store import queries
from commerce.kernel.postgres import Connection


class LockedPrice(NamedTuple):
    """The list price of a locked variant."""

    product_id: str
    price: int
    currency: str


async def lock_price(connection: Connection, sku: str) -> LockedPrice | None:
    """Lock a variant; None if there is none."""
    row = await connection.fetchrow(queries.lock_price, sku)
    return LockedPrice(*row) if row else None


async def set_price(connection: Connection, sku: str, price: int, now: datetime) -> None:
    await connection.execute(queries.set_price, sku, price, now)


async def add_price_changes(
    connection: Connection, prices: Mapping[str, tuple[int, str]], actor: str, reason: str, now: datetime
) -> None:
    """Record new prices by SKU as (price, currency)."""
    amounts, currencies = [price for price, _ in prices.values()], [currency for _, currency in prices.values()]
    await connection.execute(queries.add_price_changes, list(prices), amounts, currencies, actor, reason, now)


async def add_planned_change(connection: Connection, plan_id: UUID, now: datetime) -> None:
    """Record that a planned price was set. Raises `UniqueViolationError` if it was set before."""
    await connection.execute(queries.add_planned_change, plan_id, now)


async def list_price_changes(connection: Connection, sku: str, before: int, count: int) -> list[PriceChange]:
    """List prices before a number, newest first."""
    return [PriceChange(**row) for row in await connection.fetch(queries.list_price_changes, sku, before, count)]


async def insert_plan(
    connection: Connection, plan_id: UUID, sku: str, price: PriceInput, actor: str, now: datetime
) -> None:
    values = plan_id, sku, price.price, price.currency, price.starts_at, actor, price.reason
    await connection.execute(queries.insert_plan, *values, now)


async def get_plan(connection: Connection, plan_id: UUID) -> PlannedPrice | None:
    row = await connection.fetchrow(queries.get_plan, plan_id)
    return PlannedPrice(**row) if row else None


async def find_planned(connection: Connection, sku: str, starts_at: datetime) -> PlannedPrice | None:
    row = await connection.fetchrow(queries.find_planned, sku, starts_at)
    return PlannedPrice(**row) if row else None


async def list_planned(connection: Connection, sku: str) -> list[PlannedPrice]:
    """List the prices that are planned, the next one first."""
    return [PlannedPrice(**row) for row in await connection.fetch(queries.list_planned, sku)]


async def list_due_plans(connection: Connection, skus: Sequence[str], now: datetime) -> list[PlannedPrice]:
    """List planned prices whose time has come, by SKU and time."""
    return [PlannedPrice(**row) for row in await connection.fetch(queries.list_due_plans, skus, now)]


async def list_plans(connection: Connection, sku: str, before: UUID, count: int) -> list[PlannedPrice]:
    """List planned prices, also ended ones, newest first."""
    return [PlannedPrice(**row) for row in await connection.fetch(queries.list_plans, sku, before, count)]


async def end_plan(
    connection: Connection, plan_id: UUID, status: PlanStatus, now: datetime, actor: str, reason: str | None
) -> None:
    await connection.execute(queries.end_plan, plan_id, status, now, actor, reason)
