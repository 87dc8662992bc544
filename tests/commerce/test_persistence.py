"""Whatever comes, however often: each order ends as one order or one dead letter, and the rest gets through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from commerce.kernel.clock import SystemClock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, StreamedOrder, encode_accepted
from commerce.orders.persistence import persist
from lua import EntryId

NOW_MS = SystemClock().now_ms()
NOW = from_ms(NOW_MS)
ids = IdGenerator()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def streamed_order(**changes: Any) -> StreamedOrder:
    """A good order with two lines, or one changed to be bad."""
    order = AcceptedOrder(
        order_id=ids.new(),
        user_id="user",
        idempotency_key=f"key-{ids.new()}",
        body_digest=b"d" * 16,
        sale_id="sale",
        generation=1,
        currency="GBP",
        total_minor=300,
        pay_within_s=900,
        ship_to="[]",
        payments="[]",
        lines=[AcceptedLine(0, 0, "a", 1, 100), AcceptedLine(1, 0, "b", 2, 100)],
    )
    order = msgspec.structs.replace(order, **changes)
    return StreamedOrder(order, EntryId(NOW_MS, 3), encode_accepted(order))


async def stored(connection: asyncpg.Connection[asyncpg.Record], table: str = "orders") -> set[UUID]:
    return {row[0] for row in await connection.fetch(f"SELECT order_id FROM {table}")}


BAD = {
    "a NUL in a text": {"user_id": "us\0er"},
    "JSON that is none": {"ship_to": "[{"},
    "an object where a list belongs": {"payments": "{}"},
    "a negative total": {"total_minor": -1},
    "a number that does not fit": {"total_minor": 2**63},
    "a short digest": {"body_digest": b"d"},
    "a quantity of nothing": {"lines": [AcceptedLine(0, 0, "a", 0, 100)]},
    "a line twice": {"lines": [AcceptedLine(0, 0, "a", 1, 100), AcceptedLine(0, 0, "a", 1, 100)]},
    "a currency that is none": {"currency": "pounds"},
    "no time to pay": {"pay_within_s": 0},
    "a text that is a number": {"currency": 7},
}


async def test_a_batch_is_stored_whole(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    batch = [streamed_order() for _ in range(50)]
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.duplicates, result.refused, result.dead) == (50, 0, [], 0)
    assert await stored(connection) == {item.order.order_id for item in batch}
    row = await connection.fetchrow("SELECT * FROM orders WHERE order_id = $1", batch[0].order.order_id)
    assert row is not None
    assert (row["status"], row["accepted_at"], row["entry_seq"]) == ("awaiting_payment", NOW, 3)
    assert (row["pay_by"] - row["accepted_at"]).total_seconds() == 900
    assert await connection.fetchval("SELECT count(*) FROM order_lines") == 100


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_order_stands_alone(connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
    batch = [streamed_order() for _ in range(9)]
    batch.insert(4, streamed_order(**BAD[name]))
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.dead) == (9, 1)
    assert await stored(connection, "dead_letters") == {batch[4].order.order_id}
    assert await stored(connection) == {item.order.order_id for item in batch if item is not batch[4]}
    row = await connection.fetchrow("SELECT * FROM dead_letters")
    assert row is not None
    assert row["payload"] == batch[4].payload
    assert await connection.fetchval("SELECT count(*) FROM order_lines WHERE order_id = $1", row["order_id"]) == 0


async def test_only_bad_orders(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    batch = [streamed_order(**change) for change in BAD.values()]
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.dead) == (0, len(BAD))


async def test_the_same_batch_again_changes_nothing(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    batch = [streamed_order(), streamed_order(total_minor=-1), streamed_order()]
    await persist(connection, batch, NOW)
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.duplicates, result.dead) == (0, 2, 1)
    assert len(await stored(connection)) == 2
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 1
    assert await connection.fetchval("SELECT count(*) FROM order_lines") == 4


async def test_known_and_new_in_one_batch(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    old, new = [streamed_order() for _ in range(3)], [streamed_order() for _ in range(3)]
    await persist(connection, old, NOW)
    result = await persist(connection, [old[0], new[0], old[1], new[1], new[2], old[2]], NOW)
    assert (result.stored, result.duplicates) == (3, 3)
    assert len(await stored(connection)) == 6


async def test_a_taken_key_is_refused_and_its_goods_go_back(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    first = streamed_order(idempotency_key="k")
    second = streamed_order(idempotency_key="k", sale_id="other-sale")
    await persist(connection, [first], NOW)
    result = await persist(connection, [streamed_order(), second, streamed_order()], NOW)
    assert (result.stored, result.refused) == (2, [second.order.order_id])
    row = await connection.fetchrow("SELECT * FROM orders WHERE order_id = $1", second.order.order_id)
    assert row is not None
    assert (row["status"], row["cancel_reason"], row["idempotency_key"]) == ("cancelled", "refused", None)
    event = await connection.fetchrow("SELECT * FROM order_events WHERE order_id = $1", second.order.order_id)
    assert event is not None
    assert str(first.order.order_id) in event["reason"]
    release = await connection.fetchrow("SELECT * FROM releases")
    assert release is not None
    assert (release["release_id"], release["units"]) == (second.order.order_id, '{"a": 1, "b": 2}')


async def test_one_key_twice_in_a_batch(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Redis does not let that happen; if it did, one of them would be the order and the other be seen."""
    batch = [streamed_order(idempotency_key="k"), streamed_order(idempotency_key="k"), streamed_order()]
    result = await persist(connection, batch, NOW)
    assert (result.stored, len(result.refused)) == (2, 1)


async def test_two_writers_with_the_same_batch(database_url: str) -> None:
    """A slow writer and the one that took over from it."""
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    batch = [streamed_order() for _ in range(200)]
    results = await asyncio.gather(persist(first, batch, NOW), persist(second, batch, NOW))
    assert sorted((result.stored, result.duplicates) for result in results) == [(0, 200), (200, 0)]
    assert await first.fetchval("SELECT count(*) FROM orders") == 200
    await first.close()
    await second.close()


async def test_a_fault_of_the_database_is_no_fault_of_the_order(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    await connection.execute("ALTER TABLE order_lines RENAME TO elsewhere")
    with pytest.raises(asyncpg.UndefinedTableError):
        await persist(connection, [streamed_order(), streamed_order()], NOW)
    assert await stored(connection) == set()
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_the_database_guards_its_states(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """P8, whoever writes: no step that is not allowed, and none without its event."""
    item = streamed_order()
    await persist(connection, [item], NOW)
    id_ = item.order.order_id
    with pytest.raises(asyncpg.CheckViolationError, match="cannot go from awaiting_payment to shipped"):
        await connection.execute("UPDATE orders SET status = 'shipped' WHERE order_id = $1", id_)
    with pytest.raises(asyncpg.CheckViolationError, match="without an event"):
        await connection.execute("UPDATE orders SET status = 'paid' WHERE order_id = $1", id_)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE orders SET cancelled_at = now() WHERE order_id = $1", id_)
