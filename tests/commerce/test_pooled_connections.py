"""Pooled connections: no statement between two uses, and no lock that outlives its holder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from commerce.kernel import session_connection
from commerce.kernel.batches import Batcher
from commerce.kernel.connection_shares import undivided
from commerce.kernel.postgres import Connection, Database, connect, open_database, session_lock

LOCK, UNLOCK = "SELECT pg_try_advisory_lock($1)", "SELECT pg_advisory_unlock($1)"
NUMBER = 4_711


async def is_free(connection: Connection) -> bool:
    async with session_lock(connection, LOCK, UNLOCK, NUMBER) as is_held:
        return is_held


@pytest.fixture
async def database(database_url: str) -> Database:
    return await open_database(database_url, name="test", shares=undivided(1), timeout_s=3)


async def test_connection_goes_back_without_a_statement(database: Database, database_url: str) -> None:
    async with database.connection() as connection:
        backend = await connection.fetchval("SELECT pg_backend_pid() AS used")
    other = await connect(database_url, name="test", timeout_s=3)
    assert await other.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", backend) == (
        "SELECT pg_backend_pid() AS used"
    )
    await other.close()
    await database.close()


async def test_second_connection_asks_nothing_about_builtin_types(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    introspect, questions = asyncpg.Connection._introspect_types, []

    async def count(self: Any, *args: Any) -> Any:
        questions.append(args)
        return await introspect(self, *args)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", count)
    monkeypatch.setattr(session_connection, "_known_types", {})
    values = ([uuid4(), uuid4()], ["a", "b"], [datetime.now(UTC)])
    for question_count in (2, 3):  # about both arrays, and each time about the type of this database
        connection = await connect(database_url, name="test", timeout_s=3)
        await connection.execute("DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('calm')")
        row = await connection.fetchrow("SELECT $1::uuid[], $2::text[], $3::timestamptz[]", *values)
        assert row is not None
        assert tuple(row) == values
        assert await connection.fetchval("SELECT $1::mood[]", ["calm"]) == ["calm"]
        assert len(questions) == question_count
        await connection.close()


@pytest.mark.parametrize("unlock", [UNLOCK, "SELECT $1 / 0"], ids=["released", "not released"])
async def test_lock_ends_with_its_block(database: Database, database_url: str, unlock: str) -> None:
    other = await connect(database_url, name="test", timeout_s=3)

    taken = asyncio.Event()

    async def hold() -> None:
        async with database.connection() as connection, session_lock(connection, LOCK, unlock, NUMBER) as is_held:
            assert is_held
            taken.set()
            await asyncio.sleep(60)

    holder = asyncio.create_task(hold())
    async with asyncio.timeout(20):
        await taken.wait()
        assert not await is_free(other)
        holder.cancel()
        await asyncio.wait([holder])
        while not await is_free(other):  # noqa: ASYNC110  # a lock sends no event
            await asyncio.sleep(0.01)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await other.close()
    await database.close()


async def test_batch_of_others_takes_no_part_in_the_transaction_of_its_first_caller(database_url: str) -> None:
    """Their work is not undone with that of the first, and does not use its connection."""
    database = await open_database(database_url, name="test", shares=undivided(2), timeout_s=3)

    async def insert(numbers: Sequence[int]) -> Sequence[int]:
        async with database.transaction() as connection:
            await connection.executemany("INSERT INTO numbers VALUES ($1)", [(number,) for number in numbers])
        return numbers

    async def fail() -> None:
        async with database.joined_transaction():
            await asyncio.gather(batcher.add(1), batcher.add(2))
            await insert([3])
            raise ZeroDivisionError

    batcher = Batcher(insert)
    async with database.connection() as connection:
        await connection.execute("DROP TABLE IF EXISTS numbers; CREATE TABLE numbers (number integer)")
    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.connection() as connection:
        assert [row["number"] for row in await connection.fetch("TABLE numbers ORDER BY 1")] == [1, 2]
        await connection.execute("DROP TABLE numbers")
    await database.close()


async def test_snapshot_inside_a_joined_transaction_sees_its_changes(database_url: str) -> None:
    """The answer to a change reads what has changed, before it is committed."""
    database = await open_database(database_url, name="test", shares=undivided(2), timeout_s=3)
    async with database.joined_transaction() as connection:
        await connection.execute("CREATE TEMPORARY TABLE changed (number integer) ON COMMIT DROP")
        await connection.execute("INSERT INTO changed VALUES (7)")
        async with database.snapshot() as snapshot:
            assert await snapshot.fetchval("SELECT number FROM changed") == 7
    async with database.snapshot() as snapshot:
        assert await snapshot.fetchval("SHOW transaction_isolation") == "repeatable read"
    await database.close()
