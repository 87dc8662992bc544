"""Rows of exchanges, and terms of the SKUs that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.exchanges.model import Exchange, ExchangeStatus, WantedItem
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__, exchanges=Exchange._fields)


async def insert_exchange(
    connection: Connection, case_id: UUID, order_id: UUID, replacement_id: UUID, credit_minor: int, now: datetime
) -> None:
    """Insert the exchange of a case. Changes nothing if it has one."""
    await connection.execute(queries.insert_exchange, case_id, order_id, replacement_id, credit_minor, now)


async def get_exchange(connection: Connection, case_id: UUID) -> Exchange | None:
    row = await connection.fetchrow(queries.get_exchange, case_id)
    return Exchange(*row) if row else None


async def end_exchange(connection: Connection, case_id: UUID, status: ExchangeStatus, now: datetime) -> bool:
    """End an open exchange. False if it has ended before."""
    return str(await connection.execute(queries.end_exchange, case_id, status, now)) == "UPDATE 1"


async def list_replacements(connection: Connection, order_id: UUID) -> list[Exchange]:
    """List the exchanges of an order's units that are done."""
    return [Exchange(*row) for row in await connection.fetch(queries.list_replacements, order_id)]


async def find_replaced(connection: Connection, order_id: UUID) -> Exchange | None:
    """Return the exchange that an order comes from as its replacement, if it is done."""
    row = await connection.fetchrow(queries.find_replaced, order_id)
    return Exchange(*row) if row else None


async def get_discount(connection: Connection, order_id: UUID) -> int:
    """Return what was taken off a replacement, in minor units."""
    return int(await connection.fetchval(queries.get_discount, order_id) or 0)


async def list_wanted_items(
    connection: Connection, sale_id: str, skus: Sequence[str]
) -> tuple[int, dict[str, WantedItem]]:
    """Return the generation of a sale (0 without items) and the terms of those of the SKUs that it sells."""
    rows = await connection.fetch(queries.list_wanted_items, sale_id, list(skus))
    items = {row["sku"]: WantedItem(*tuple(row)[1:]) for row in rows}
    return (rows[0]["generation"] if rows else 0), items


async def read_address_texts(connection: Connection, order_id: UUID) -> str:
    """Return the addresses of an order as JSON."""
    return str(await connection.fetchval(queries.read_address_texts, order_id))


async def withdraw_expired(connection: Connection, order_id: UUID) -> None:
    """Keep an expired replacement from being recovered. Call inside a transaction that holds its lock."""
    await connection.execute(queries.withdraw_expired, order_id)


async def is_releasing(connection: Connection, order_id: UUID) -> bool:
    """Tell whether units of an order are still to be released in Redis."""
    return bool(await connection.fetchval(queries.is_releasing, order_id))
