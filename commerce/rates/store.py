"""Rows of rate tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.rates.model import Rate, RateTable

queries = load_queries(__package__)
_RATE_FIELDS = Rate.__struct_fields__


async def insert_table(
    connection: Connection, currency: str, rates: Sequence[Rate], source: str, actor: str, now: datetime
) -> int:
    """Insert a table with its rates and return its id. Call inside a transaction."""
    table_id: int = await connection.fetchval(queries.insert_table, now, actor, source, currency)
    await connection.copy_records_to_table(
        "rates",
        columns=["table_id", *_RATE_FIELDS],
        records=[(table_id, *msgspec.structs.astuple(rate)) for rate in rates],
    )
    return table_id


async def find_newest_id(connection: Connection) -> int | None:
    """Return the id of the current table, or None."""
    table_id: int | None = await connection.fetchval(queries.find_newest_id)
    return table_id


async def list_tables(connection: Connection, count: int) -> list[RateTable]:
    """List the tables imported last, the current one first."""
    return [RateTable(**row) for row in await connection.fetch(queries.list_tables, count)]


async def list_rates(connection: Connection, table_id: int) -> list[Rate]:
    """List the rates of a table, in any order."""
    return [Rate(*row) for row in await connection.fetch(queries.list_rates, table_id)]
