"""Brings a database to the schema in `migrations/`: numbered files, each applied once, in one transaction."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from commerce.kernel.errors import Conflict, NotReady
from commerce.kernel.postgres import Connection, check_version

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x466C6F6F  # any constant: only migrations of this project use it
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    digest     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def all_migrations() -> list[Migration]:
    """Every migration that ships, in order. The numbers have no gaps."""
    found = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in resources.files("migrations").iterdir()
        if (match := _FILE.fullmatch(file.name))
    ]
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("the numbers under migrations/ have a gap or a double")
    return found


async def applied(connection: Connection) -> dict[int, str]:
    """Number and digest of what the database has; empty for a new one."""
    if not await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        return {}
    rows = await connection.fetch("SELECT number, digest FROM schema_migrations")
    return {row["number"]: row["digest"] for row in rows}


async def migrate(connection: Connection) -> list[Migration]:
    """Apply what is missing and return it. Safe to run from several processes at once."""
    await check_version(connection)
    done: list[Migration] = []
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(_TABLE)
        have = await applied(connection)
        for migration in all_migrations():
            if digest := have.get(migration.number):
                if digest != migration.digest:
                    raise Conflict(
                        f"migration {migration.number} ({migration.name}) was applied in another version: "
                        "an applied migration is never edited, add a new one"
                    )
                continue
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (number, name, digest) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.digest,
                )
            done.append(migration)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return done


async def check_migrated(connection: Connection) -> None:
    """Refuse to work on a schema that is not this version's."""
    have = await applied(connection)
    missing = [migration.number for migration in all_migrations() if migration.number not in have]
    if missing:
        raise NotReady(f"the database lacks migrations {missing}: run `floodgate migrate`")
