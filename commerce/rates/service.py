"""Imports rate tables and reads the current one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.rates import store
from commerce.rates.errors import NoRateTable
from commerce.rates.model import RateTable, RateTableIndex
from commerce.rates.rate_csv import read_rate_table

_MAX_TABLES = 50
_MAX_SOURCE_CHARS = 200


class Rates:
    """Rate tables over Postgres. The table imported last is current, and is kept in memory."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._index: RateTableIndex | None = None
        self._load_lock = asyncio.Lock()

    async def import_table(self, lines: Iterable[str], source: str, actor: str) -> RateTable:
        """Import a rate table from CSV (columns: `commerce.rates.rate_csv`) and make it current.

        `source` says where it comes from, such as the name of the file. Raises `UnreadableCsv` or `InvalidRateTable`;
        then the previous table stays current.
        """
        currency, rates = read_rate_table(lines)
        now, source = from_ms(self._clock.now_ms()), source[-_MAX_SOURCE_CHARS:]
        async with self._db.transaction() as connection:
            table_id = await store.insert_table(connection, currency, rates, source, actor, now)
        return RateTable(table_id, now, actor, source, currency, len(rates))

    async def get_current(self) -> RateTableIndex:
        """Return the current table. Raises `NoRateTable`."""
        async with self._db.connection() as connection:
            index = await self.find_current(connection)
        if index is None:
            raise NoRateTable("no rate table was imported yet; run floodgate rates import FILE.csv")
        return index

    async def find_current(self, connection: Connection) -> RateTableIndex | None:
        """Return the current table, or None. Takes one short query if the table is in memory."""
        newest_id = await store.find_newest_id(connection)
        if newest_id is None:
            return None
        async with self._load_lock:  # one of many concurrent callers loads the table
            if self._index is None or self._index.table.table_id < newest_id:
                self._index = await _load_index(connection)
            return self._index

    async def list_tables(self) -> list[RateTable]:
        """List the tables imported last, the current one first."""
        async with self._db.connection() as connection:
            return await store.list_tables(connection, _MAX_TABLES)


async def _load_index(connection: Connection) -> RateTableIndex:
    [table] = await store.list_tables(connection, 1)
    return RateTableIndex(table, await store.list_rates(connection, table.table_id))
