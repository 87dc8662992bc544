"""Each order of a batch ends as one order or one dead letter, however often it is delivered."""

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
from commerce.orders.errors import OrdersNotStorable
from commerce.orders.persistence import SalePersistence, persist
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
    """Build a good order with two lines; `changes` may make it bad."""
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


async def stored_ids(connection: asyncpg.Connection[asyncpg.Record], table: str = "orders") -> set[UUID]:
    return {row[0] for row in await connection.fetch(f"SELECT order_id FROM {table}")}


BAD: dict[str, dict[str, Any]] = {
    "a NUL in a text": {"user_id": "us\0er"},
    "invalid JSON": {"ship_to": "[{"},
    "an object in place of a list": {"payments": "{}"},
    "a negative total": {"total_minor": -1},
    "a number too large for its column": {"total_minor": 2**63},
    "a short digest": {"body_digest": b"d"},
    "a quantity of 0": {"lines": [AcceptedLine(0, 0, "a", 0, 100)]},
    "a repeated line": {"lines": [AcceptedLine(0, 0, "a", 1, 100), AcceptedLine(0, 0, "a", 1, 100)]},
    "an invalid currency": {"currency": "pounds"},
    "no time to pay": {"pay_within_s": 0},
    "a number in place of a text": {"currency": 7},
}


async def test_batch_is_stored_whole(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    batch = [streamed_order() for _ in range(50)]
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.duplicates, result.refused, result.dead_lettered) == (50, 0, [], {})
    assert await stored_ids(connection) == {item.order.order_id for item in batch}
    row = await connection.fetchrow("SELECT * FROM orders WHERE order_id = $1", batch[0].order.order_id)
    assert row is not None
    assert (row["status"], row["accepted_at"], row["entry_seq"]) == ("awaiting_payment", NOW, 3)
    assert (row["pay_by"] - row["accepted_at"]).total_seconds() == 900
    assert await connection.fetchval("SELECT count(*) FROM order_lines") == 100


@pytest.mark.parametrize("name", BAD)
async def test_batch_with_bad_order_dead_letters_only_that_order(
    connection: asyncpg.Connection[asyncpg.Record], name: str
) -> None:
    batch = [streamed_order() for _ in range(9)]
    batch.insert(4, streamed_order(**BAD[name]))
    result = await persist(connection, batch, NOW)
    assert (result.stored, len(result.dead_lettered)) == (9, 1)
    assert await stored_ids(connection, "dead_letters") == {batch[4].order.order_id}
    assert await stored_ids(connection) == {item.order.order_id for item in batch if item is not batch[4]}
    row = await connection.fetchrow("SELECT * FROM dead_letters")
    assert row is not None
    assert row["payload"] == batch[4].payload
    assert await connection.fetchval("SELECT count(*) FROM order_lines WHERE order_id = $1", row["order_id"]) == 0


async def test_batch_of_bad_orders_with_different_errors_is_dead_lettered(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    names = ("a NUL in a text", "invalid JSON", "a negative total", "a short digest", "a quantity of 0")
    result = await persist(connection, [streamed_order(**BAD[name]) for name in names], NOW)
    assert (result.stored, len(result.dead_lettered)) == (0, len(names))


async def test_orders_with_same_error_are_suspects_until_another_is_stored(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    for change in BAD.values():
        persistence, batch = SalePersistence(), [streamed_order(**change) for _ in range(3)]
        for _ in range(3):
            with pytest.raises(OrdersNotStorable, match="cannot store 3 orders"):
                await persistence.persist(connection, batch, NOW)
        assert not await stored_ids(connection, "dead_letters") & {item.order.order_id for item in batch}
        persistence.confirm(await persistence.persist(connection, [streamed_order()], NOW))
        assert len((await persistence.persist(connection, batch, NOW)).dead_lettered) == 3


async def test_bad_orders_one_by_one_are_suspects_after_the_first(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    persistence, [first, second, third] = SalePersistence(), [streamed_order(total_minor=-1) for _ in range(3)]
    assert len((await persistence.persist(connection, [first], NOW)).dead_lettered) == 1
    with pytest.raises(OrdersNotStorable):
        await persistence.persist(connection, [second], NOW)
    persistence.confirm(await persistence.persist(connection, [streamed_order()], NOW))
    assert len((await persistence.persist(connection, [second], NOW)).dead_lettered) == 1
    assert len((await persistence.persist(connection, [third], NOW)).dead_lettered) == 1


async def test_orders_that_are_rolled_back_prove_nothing(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    persistence, batch = SalePersistence(), [streamed_order(total_minor=-1) for _ in range(3)]
    for _ in range(2):
        with pytest.raises(OrdersNotStorable):
            await persistence.persist(connection, batch, NOW)
        transaction = connection.transaction()
        await transaction.start()
        assert (await persistence.persist(connection, [streamed_order()], NOW)).stored == 1
        await transaction.rollback()


async def test_dead_letter_after_rollback_is_kept(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """A lone bad order in a quiet sale would else be a suspect until another order comes."""
    persistence, bad = SalePersistence(), streamed_order(total_minor=-1)
    transaction = connection.transaction()
    await transaction.start()
    assert len((await persistence.persist(connection, [bad], NOW)).dead_lettered) == 1
    await transaction.rollback()
    persistence.confirm(await persistence.persist(connection, [bad], NOW), [bad.order.order_id])
    assert await stored_ids(connection, "dead_letters") == {bad.order.order_id}
    with pytest.raises(OrdersNotStorable):
        await persistence.persist(connection, [streamed_order(total_minor=-1)], NOW)


SCHEMA_DEFECTS = {
    "a check that no order meets": "ALTER TABLE orders ADD CHECK (generation > 1000)",
    "a column that no order fills": "ALTER TABLE orders ADD COLUMN another integer CHECK (another IS NOT NULL)",
    "a trigger that refuses lines": "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE check_violation; END $$; "
    "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON order_lines DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION refuse()",
}


@pytest.mark.parametrize("name", SCHEMA_DEFECTS)
async def test_defect_of_schema_dead_letters_no_order(
    connection: asyncpg.Connection[asyncpg.Record], name: str
) -> None:
    await connection.execute(SCHEMA_DEFECTS[name])
    for size in (1, 4):
        with pytest.raises(OrdersNotStorable):
            await persist(connection, [streamed_order() for _ in range(size)], NOW)
    assert await stored_ids(connection, "dead_letters") == set()


@pytest.mark.parametrize("name", ["a NUL in a text", "a negative total"])
async def test_bad_order_among_stored_orders_or_used_keys_is_dead_lettered(
    connection: asyncpg.Connection[asyncpg.Record], name: str
) -> None:
    """The search for stored orders and used keys meets the bad order too."""
    stored = streamed_order(idempotency_key="used")
    await persist(connection, [stored], NOW)
    many = [streamed_order() for _ in range(1_100)]  # more than one buffer of COPY, so that the used key is met first
    bad = streamed_order(**{**BAD[name], "idempotency_key": "used" if name == "a negative total" else "free"})
    result = await persist(connection, [stored, *many, bad], NOW)
    assert (result.stored, len(result.dead_lettered)) == (1_100, 1)


async def test_batch_repeated_changes_nothing(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    batch = [streamed_order(), streamed_order(total_minor=-1), streamed_order()]
    await persist(connection, batch, NOW)
    result = await persist(connection, batch, NOW)
    assert (result.stored, result.duplicates, len(result.dead_lettered)) == (0, 2, 1)
    assert len(await stored_ids(connection)) == 2
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 1
    assert await connection.fetchval("SELECT count(*) FROM order_lines") == 4


async def test_batch_with_stored_and_new_orders_stores_new_ones(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    stored, new = [streamed_order() for _ in range(3)], [streamed_order() for _ in range(3)]
    await persist(connection, stored, NOW)
    result = await persist(connection, [stored[0], new[0], stored[1], new[1], new[2], stored[2]], NOW)
    assert (result.stored, result.duplicates) == (3, 3)
    assert len(await stored_ids(connection)) == 6


async def test_order_with_used_key_is_refused_and_its_stock_released(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
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


async def test_batch_with_repeated_key_stores_one_order(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Redis prevents this. If it happened, one would be stored as order and the other as refused."""
    batch = [streamed_order(idempotency_key="k"), streamed_order(idempotency_key="k"), streamed_order()]
    result = await persist(connection, batch, NOW)
    assert (result.stored, len(result.refused)) == (2, 1)


async def test_two_writers_with_same_batch_store_it_once(database_url: str) -> None:
    """A slow writer, and the writer that claimed its entries."""
    first, second = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    batch = [streamed_order() for _ in range(200)]
    results = await asyncio.gather(persist(first, batch, NOW), persist(second, batch, NOW))
    assert sorted((result.stored, result.duplicates) for result in results) == [(0, 200), (200, 0)]
    assert await first.fetchval("SELECT count(*) FROM orders") == 200
    await first.close()
    await second.close()


async def test_database_error_dead_letters_no_order(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    await connection.execute("ALTER TABLE order_lines RENAME TO renamed_lines")
    with pytest.raises(asyncpg.UndefinedTableError):
        await persist(connection, [streamed_order(), streamed_order()], NOW)
    assert await stored_ids(connection) == set()
    assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_database_refuses_forbidden_status_changes(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """P8: no forbidden status change and none without its event, whichever program writes."""
    item = streamed_order()
    await persist(connection, [item], NOW)
    id_ = item.order.order_id
    with pytest.raises(asyncpg.CheckViolationError, match="cannot go from awaiting_payment to shipped"):
        await connection.execute("UPDATE orders SET status = 'shipped' WHERE order_id = $1", id_)
    with pytest.raises(asyncpg.CheckViolationError, match="without an event"):
        await connection.execute("UPDATE orders SET status = 'paid' WHERE order_id = $1", id_)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE orders SET cancelled_at = now() WHERE order_id = $1", id_)
