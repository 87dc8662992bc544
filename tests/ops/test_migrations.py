"""Migrations are applied once, also concurrently; every SQL block fits the resulting schema."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from importlib import resources
from uuid import uuid4

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.errors import Conflict, NotReady
from commerce.kernel.migrations import Migration, check_migrated, load_migrations, migrate
from commerce.kernel.postgres import connect
from commerce.kernel.sql import Queries, load_queries
from tests.support.sales import eventually
from tests.support.servers import Servers

PACKAGES = sorted(
    f"commerce.{part.name}" for part in resources.files("commerce").iterdir() if part.joinpath("queries.sql").is_file()
)


@pytest.fixture
async def empty_url(servers: Servers) -> AsyncIterator[str]:
    """Return the URL of an empty database."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.database_url.format(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_migrate_repeated_applies_nothing(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    with pytest.raises(NotReady, match="run `floodgate migrate`"):
        await check_migrated(connection)
    assert await migrate(connection) == load_migrations()
    assert await migrate(connection) == []
    await check_migrated(connection)
    await connection.close()


async def test_migrate_concurrently_applies_each_once(empty_url: str) -> None:
    connections = [await asyncpg.connect(empty_url) for _ in range(4)]
    done = await asyncio.gather(*(migrate(connection) for connection in connections))
    assert sorted(len(part) for part in done) == [0, 0, 0, len(load_migrations())]
    for connection in connections:
        await connection.close()


async def test_edited_applied_migration_is_refused(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    await migrate(connection)
    first, *rest = load_migrations()
    edited = Migration(first.number, first.name, first.sql + "-- edited")
    monkeypatch.setattr(migrations, "load_migrations", lambda: [edited, *rest])
    with pytest.raises(Conflict, match="was edited after it was"):
        await migrate(connection)
    await connection.close()


async def test_failed_migration_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    broken = Migration(load_migrations()[-1].number + 1, "broken", "CREATE TABLE half (); SELECT 1/0;")
    good = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*good, broken])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == len(good)
    await connection.close()


async def test_migration_of_closed_sales_sets_their_time(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:2])
    await migrate(connection)
    for sale_id, state in (("a", "open"), ("b", "closed")):
        await connection.execute(
            "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, epoch, created_at) "
            "VALUES ($1, 'A sale', 'CNY', $2, now(), 900, 1, now())",
            sale_id,
            state,
        )
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)
    rows = await connection.fetch("SELECT sale_id, closed_at IS NOT NULL AS timed FROM sales ORDER BY sale_id")
    assert [tuple(row) for row in rows] == [("a", False), ("b", True)]
    await connection.close()


def _queries(package: str) -> dict[str, str]:
    """Return the SQL blocks of a package by name."""
    if package == "commerce.kernel":
        return load_queries(package).all()
    queries: Queries = importlib.import_module(f"{package}.store").queries
    return queries.all()


async def test_statement_prepared_before_a_migration_adds_columns_has_the_same_result(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)

    async def prepare() -> dict[str, list[str]]:
        statements = {f"{package} {name}": sql for package in PACKAGES for name, sql in _queries(package).items()}
        return {
            name: [attribute.name for attribute in (await connection.prepare(sql)).get_attributes()]
            for name, sql in statements.items()
            if not sql.startswith("SET")
        }

    before = await prepare()
    for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        await connection.execute(f"ALTER TABLE {row['tablename']} ADD COLUMN of_the_next_version integer DEFAULT 1")
    assert await prepare() == before
    await connection.close()


@pytest.mark.parametrize("package", PACKAGES)
async def test_sql_blocks_of_package_fit_the_schema(database_url: str, package: str) -> None:
    connection = await asyncpg.connect(database_url)
    for name, sql in _queries(package).items():
        if not sql.startswith("SET"):
            try:
                await connection.prepare(sql)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{package} {name}: {error}")
    await connection.close()


async def test_migration_longer_than_connection_timeout_is_applied(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await connect(empty_url, name="migrate", timeout_s=2)
    every = load_migrations()
    slow = Migration(every[-1].number + 1, "slow", "SELECT pg_sleep(3.5);")
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*every, slow])
    assert (await migrate(connection))[-1] == slow
    assert await connection.fetchval("SHOW statement_timeout") == "2s"
    await connection.close()


async def test_index_is_built_while_rows_are_written(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted build is done again; other sessions write meanwhile, and timeouts stay as they were."""
    connection = await connect(empty_url, name="migrate", timeout_s=2)
    await migrate(connection)
    every = load_migrations()
    sql = (
        "-- outside a transaction\n-- Why; and how.\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS half ON order_lines (sku);\n"
    )
    building = Migration(every[-1].number + 1, "building", sql)
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*every, building])
    insert = "INSERT INTO order_lines VALUES (gen_random_uuid(), 0, 0, 'a', 1, 1)"
    first, second = [await asyncpg.connect(empty_url) for _ in range(2)]
    await first.execute("CREATE INDEX half ON order_lines (sku)")
    await first.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'half'::regclass")
    transaction = first.transaction()
    await transaction.start()
    await first.execute(insert)
    migrating = asyncio.create_task(migrate(connection))

    async def is_waiting() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'"
        return bool(await second.fetchval(waiting, connection.get_server_pid()))

    await eventually(is_waiting)
    await second.execute("SET lock_timeout = '1s'")
    await second.execute(insert)
    await transaction.commit()
    assert await migrating == [building]
    assert await first.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'half'::regclass")
    assert await connection.fetchval("SHOW statement_timeout") == "2s"
    await check_migrated(connection)
    for session in (connection, first, second):
        await session.close()
