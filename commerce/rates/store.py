"""The rows of rate tables, and the choice that is kept with a parcel."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.rates.model import CarrierChoice, Rate, RateTable

queries = load_queries(__package__)
_RATE = Rate.__struct_fields__


async def insert(
    connection: Connection, currency: str, rates: Sequence[Rate], source: str, actor: str, now: datetime
) -> int:
    """Write a whole table inside the caller's transaction. Returns its number."""
    table_id: int = await connection.fetchval(queries.insert_table, now, actor, source, currency)
    await connection.copy_records_to_table(
        "rates",
        columns=["table_id", *_RATE],
        records=[(table_id, *msgspec.structs.astuple(rate)) for rate in rates],
    )
    return table_id


async def newest(connection: Connection) -> int | None:
    """The number of the table in force."""
    found: int | None = await connection.fetchval(queries.newest_table)
    return found


async def tables(connection: Connection, count: int) -> list[RateTable]:
    """The last tables, the one in force first."""
    return [RateTable(**row) for row in await connection.fetch(queries.list_tables, count)]


async def rates_of(connection: Connection, table_id: int) -> list[Rate]:
    return [Rate(*row) for row in await connection.fetch(queries.rates_of, table_id)]


async def choice_of(connection: Connection, shipment_id: UUID) -> CarrierChoice | None:
    """Why a parcel got its carrier; None if there is no such parcel, or nothing was chosen for it."""
    found = await connection.fetchval(queries.choice_of, shipment_id)
    return msgspec.json.decode(found, type=CarrierChoice) if found else None
