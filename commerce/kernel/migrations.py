"""Migrations of the database: numbered files in `migrations/`, each applied once.

Each is one transaction, except a file whose first line is `-- outside a transaction`: its statements run one by one, so
that they may build indexes `CONCURRENTLY`, while the shop goes on. If it is interrupted it is applied again from its
beginning, so each of its statements must change nothing when it is repeated (`IF NOT EXISTS`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from commerce.kernel.errors import Conflict, NotReady
from commerce.kernel.postgres import Connection, check_version

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x466C6F6F  # any constant: only migrations of this project use it
_TIMEOUT_S = 6 * 3600  # an UPDATE of a large table takes longer than any statement of a running shop
_LOCK_POLL_S = 0.2
_OUTSIDE_TRANSACTION = "-- outside a transaction\n"
_INVALID_INDEXES = (
    "SELECT indexrelid::regclass::text AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    "WHERE NOT indisvalid AND relnamespace = 'public'::regnamespace AND relname = ANY($1::text[])"
)
_BUILT_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+)")
_RECORD = "INSERT INTO schema_migrations (number, name, digest) VALUES ($1, $2, $3)"
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; `digest` detects edits after it was applied."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Return its statements, without comments of whole lines, to run one by one outside a transaction."""
        statements = re.sub(r"^--.*\n", "", self.sql, flags=re.MULTILINE).split(";\n")
        return [statement.strip() for statement in statements if statement.strip()]


def load_migrations() -> list[Migration]:
    """Return every shipped migration in order. Raises `ValueError` if the numbers are not 1, 2, 3 …."""
    migrations = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in resources.files("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    migrations.sort(key=lambda migration: migration.number)
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError("cannot load migrations: their numbers have a gap or a repeat")
    return migrations


async def read_applied(connection: Connection) -> dict[int, str]:
    """Return the digests of applied migrations by number; empty for a new database."""
    if not await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        return {}
    rows = await connection.fetch("SELECT number, digest FROM schema_migrations")
    return {row["number"]: row["digest"] for row in rows}


async def migrate(connection: Connection) -> list[Migration]:
    """Apply the missing migrations and return them. Several processes may run it at once.

    Each migration may take six hours, whatever the connection's own timeouts are.
    Raises `Conflict` if an applied migration was edited.
    """
    await check_version(connection)
    newly_applied: list[Migration] = []
    # One that waited inside a statement would keep an index from being built: that waits for all older snapshots.
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110  # another process
        await asyncio.sleep(_LOCK_POLL_S)
    try:
        await connection.execute(_TABLE)
        digests = await read_applied(connection)
        for migration in load_migrations():
            if digest := digests.get(migration.number):
                if digest != migration.digest:
                    raise Conflict(
                        f"cannot migrate: migration {migration.number} ({migration.name}) was edited after it was "
                        "applied; restore it and add a new migration"
                    )
                continue
            await _apply(connection, migration)
            newly_applied.append(migration)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return newly_applied


async def _apply(connection: Connection, migration: Migration) -> None:
    record = (migration.number, migration.name, migration.digest)
    if not migration.sql.startswith(_OUTSIDE_TRANSACTION):
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT_S}s'")
            await connection.execute(migration.sql, timeout=_TIMEOUT_S)
            await connection.execute(_RECORD, *record)
        return
    timeout = await connection.fetchval("SHOW statement_timeout")
    await connection.execute(f"SET statement_timeout = '{_TIMEOUT_S}s'")
    try:
        # An index whose building was interrupted is kept up to date and never used; IF NOT EXISTS would leave it so.
        for row in await connection.fetch(_INVALID_INDEXES, _BUILT_INDEX.findall(migration.sql)):
            await connection.execute(f"DROP INDEX CONCURRENTLY {row['name']}", timeout=_TIMEOUT_S)
        for statement in migration.statements():
            await connection.execute(statement, timeout=_TIMEOUT_S)
        await connection.execute(_RECORD, *record)
    finally:
        await connection.execute(f"SET statement_timeout = '{timeout}'")


async def check_migrated(connection: Connection) -> None:
    """Raise `NotReady` if the database lacks a migration of this version."""
    digests = await read_applied(connection)
    missing = [migration.number for migration in load_migrations() if migration.number not in digests]
    if missing:
        raise NotReady(f"cannot use the database: it lacks migrations {missing}; run `floodgate migrate`")
