"""Migrations of the database: numbered files in `migrations/`, each applied once, in one transaction."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from commerce.kernel.errors import Conflict, NotReady
from commerce.kernel.postgres import Connection, check_version

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x466C6F6F  # any constant: only migrations of this project use it
_TIMEOUT_S = 6 * 3600  # an UPDATE of a large table takes longer than any statement of a running shop
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
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
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
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT_S}s'")
                await connection.execute(migration.sql, timeout=_TIMEOUT_S)
                await connection.execute(
                    "INSERT INTO schema_migrations (number, name, digest) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.digest,
                )
            newly_applied.append(migration)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return newly_applied


async def check_migrated(connection: Connection) -> None:
    """Raise `NotReady` if the database lacks a migration of this version."""
    digests = await read_applied(connection)
    missing = [migration.number for migration in load_migrations() if migration.number not in digests]
    if missing:
        raise NotReady(f"cannot use the database: it lacks migrations {missing}; run `floodgate migrate`")
