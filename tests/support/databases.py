"""Databases of the tests: copies of a migrated template, emptied after a test and used again.

A copy has a thousand files, and takes several times as long as emptying the few tables that a test has filled. What a
test has changed beyond rows is not repaired: such a database is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from uuid import uuid4

import asyncpg

from tests.support.servers import TEMPLATE, Servers

_CLOSING_S = 2.0
_CATALOGS = (
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_index",
    "pg_namespace",
    "pg_proc",
    "pg_trigger",
    "pg_type",
)
_DEFINITIONS = (
    "SELECT ARRAY["
    + ", ".join(f"(SELECT count(*) || '/' || max(xmin::text::bigint) FROM {catalog})" for catalog in _CATALOGS)
    + "]"
)
"""A change of definitions adds or removes a row, or writes one with a new transaction id."""
_FILLED_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0
"""
_RESET_SEQUENCES = """
SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
"""


@dataclass(frozen=True)
class _Original:
    """The definitions of a database, and the rows that migrations have added."""

    definitions: list[str]
    rows: Mapping[str, bytes]
    """by table, as COPY writes them"""
    digests: Mapping[str, str]
    """of the rows by table"""


class Databases:
    """The databases of one process of tests."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._free: list[str] = []
        self._original: _Original | None = None

    async def take(self) -> str:
        """Return the name of a migrated database without orders."""
        if not self._free:
            name = f"test_{uuid4().hex}"
            await self._administer(self._servers.copy_template(name))
            return name
        return self._free.pop()

    async def give_back(self, name: str) -> None:
        """Empty a database for the next test, or drop it if that is not enough."""
        if self._original is None:
            self._original = await self._read_original()
        if await self._empty(name, self._original):
            self._free.append(name)
        else:
            await self._administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self._servers.database_url.format("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _read_original(self) -> _Original:
        connection = await asyncpg.connect(self._servers.database_url.format(TEMPLATE))
        try:
            tables = [row["relname"] for row in await connection.fetch(_FILLED_TABLES)]
            return _Original(
                await connection.fetchval(_DEFINITIONS),
                {table: await _read_rows(connection, table) for table in tables},
                await _read_digests(connection, tables),
            )
        finally:
            await connection.close()

    async def _empty(self, name: str, original: _Original) -> bool:
        """Empty a database. Returns False if it is still in use, or something else than rows was changed."""
        try:
            connection = await asyncpg.connect(self._servers.database_url.format(name))
        except asyncpg.InvalidCatalogNameError:
            return False
        try:
            if not await _is_left_alone(connection) or await connection.fetchval(_DEFINITIONS) != original.definitions:
                return False
            filled = {row["relname"] for row in await connection.fetch(_FILLED_TABLES)}
            digests = await _read_digests(connection, original.rows)
            changed = filled - original.rows.keys() | {
                table for table, digest in original.digests.items() if digests[table] != digest
            }
            if changed:
                async with connection.transaction():
                    # Neither triggers nor foreign keys look at what is restored.
                    await connection.execute("SET LOCAL session_replication_role = replica")
                    for _ in range(2):  # triggers that always run may write rows meanwhile
                        await connection.execute("; ".join(f"DELETE FROM {table}" for table in changed))
                    for table in changed & original.rows.keys():
                        await connection.copy_to_table(table, source=BytesIO(original.rows[table]))
                    await connection.execute(_RESET_SEQUENCES)
            return True
        finally:
            await connection.close()


async def _is_left_alone(connection: asyncpg.Connection) -> bool:
    """Wait until no other connection is open: closed ones end a little later."""
    deadline = asyncio.get_running_loop().time() + _CLOSING_S
    while asyncio.get_running_loop().time() < deadline:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        if not await connection.fetchval(others):
            return True
        await asyncio.sleep(0.005)
    return False


async def _read_digests(connection: asyncpg.Connection, tables: Iterable[str]) -> Mapping[str, str]:
    columns = (
        f"(SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} AS t) AS {table}" for table in tables
    )
    return dict(await connection.fetchrow(f"SELECT {', '.join(columns)}") or {})


async def _read_rows(connection: asyncpg.Connection, table: str) -> bytes:
    output = BytesIO()
    await connection.copy_from_table(table, output=output)
    return output.getvalue()
