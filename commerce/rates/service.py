"""Importing rate tables, and the one in force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.rates import store
from commerce.rates.errors import NoChoice, NoRateTable
from commerce.rates.model import CarrierChoice, RateTable, RateTableIndex
from commerce.rates.rate_csv import read_table

_TABLES = 50


class Rates:
    """Rate tables over Postgres. The one in force is kept in memory until another one is imported."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._book: RateTableIndex | None = None
        self._reading = asyncio.Lock()

    async def import_table(self, lines: Iterable[str], source: str, actor: str) -> RateTable:
        """Import the lines of a CSV file (columns in `commerce.rates.rate_csv`); from now on they are in force.

        `source` says where they come from, such as the file's name. Raises `UnreadableFile` and `FaultyTable`, and then
        the table before stays in force.
        """
        currency, rates = read_table(lines)
        now, source = from_ms(self._clock.now_ms()), source[-200:]
        async with self._db.transaction() as connection:
            table_id = await store.insert(connection, currency, rates, source, actor, now)
        return RateTable(table_id, now, actor, source, currency, len(rates))

    async def current(self) -> RateTableIndex:
        """The table in force. Raises `NoRateTable`."""
        async with self._db.connection() as connection:
            book = await self.find_current(connection)
        if book is None:
            raise NoRateTable("nobody can be chosen before rates are imported: floodgate rates import FILE.csv")
        return book

    async def find_current(self, connection: Connection) -> RateTableIndex | None:
        """The table in force, if there is one; one short query if it is in memory."""
        newest = await store.newest(connection)
        if newest is None:
            return None
        async with self._reading:  # many ask at once, and one of them reads
            if self._book is None or self._book.table.table_id < newest:
                self._book = await _read(connection)
            return self._book

    async def tables(self) -> list[RateTable]:
        """The last tables that were imported, the one in force first."""
        async with self._db.connection() as connection:
            return await store.tables(connection, _TABLES)

    async def explain(self, shipment_id: UUID) -> CarrierChoice:
        """How the carrier of a parcel was chosen. Raises `NoChoice`."""
        async with self._db.connection() as connection:
            choice = await store.choice_of(connection, shipment_id)
        if choice is None:
            raise NoChoice(f"there is no parcel {shipment_id}, or no carrier was looked for yet")
        return choice


async def _read(connection: Connection) -> RateTableIndex:
    [table] = await store.tables(connection, 1)
    return RateTableIndex(table, await store.rates_of(connection, table.table_id))
