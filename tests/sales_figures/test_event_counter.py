"""Events count once: whenever their transactions commit, whoever counts them, and however often."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from commerce.kernel.postgres import Connection
from commerce.sales_figures import store, visits
from commerce.sales_figures.event_counter import EventCounter
from config.settings import Settings
from ops.services import CliServices, open_cli_services
from tests.sales_figures.sold_history import PRICE, lapse, pay, store_order
from tests.support.gateway import run_workers
from tests.support.sales import CURRENCY, eventually, make_sale

ZONE = ZoneInfo("Asia/Shanghai")
EVENING = datetime(2026, 11, 10, 15, 59, 30, tzinfo=UTC)  # a minute before midnight in Shanghai
ITEMS = {"a": (1_000, PRICE, None), "b": (1_000, PRICE, None)}


@pytest.fixture
async def sale(shop: CliServices, sale_id: str) -> str:
    await make_sale(shop, sale_id, ITEMS, opens_at=EVENING - timedelta(days=2))
    return sale_id


def make_counter(shop: CliServices, events_per_step: int = 500) -> EventCounter:
    return EventCounter(shop.db, shop.clock, ZONE, events_per_step)


async def add_orders(shop: CliServices, sale: str, count: int, at: datetime = EVENING) -> None:
    """Store paid orders, ten in a transaction, a minute apart."""
    for start in range(0, count, 10):
        async with shop.db.transaction() as connection:
            for number in range(start, min(start + 10, count)):
                moment = at + number * timedelta(minutes=1)
                order_id = await store_order(connection, shop, sale, {"a": 2, "b": 1}, moment, CURRENCY)
                await pay(connection, order_id, moment + timedelta(seconds=40))


async def read_days(shop: CliServices) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return await read(shop, "sales_by_day", "day")


async def read(shop: CliServices, table: str, column: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            f"SELECT sku, {column}, figure, reason, events, units, amount_minor FROM {table} ORDER BY 1, 2, 3, 4"
        )
    return {tuple(row)[:4]: tuple(row)[4:] for row in rows}


async def count_all(*counters: EventCounter) -> None:
    while any([await counter.step() for counter in counters]):
        pass


async def test_order_counts_in_its_minute_and_in_the_day_of_the_shop(shop: CliServices, sale: str) -> None:
    async with shop.db.transaction() as connection:
        order_id = await store_order(connection, shop, sale, {"a": 2, "b": 1}, EVENING, CURRENCY)
        await pay(connection, order_id, EVENING + timedelta(seconds=40))
    await count_all(make_counter(shop))
    minute, after = EVENING.replace(second=0), EVENING.replace(second=0) + timedelta(minutes=1)
    assert await read(shop, "sales_by_minute", "minute") == {
        ("", minute, "accepted", ""): (1, 3, 300),
        ("", after, "paid", ""): (1, 3, 300),
        ("a", minute, "accepted", ""): (1, 2, 200),
        ("a", after, "paid", ""): (1, 2, 200),
        ("b", minute, "accepted", ""): (1, 1, 100),
        ("b", after, "paid", ""): (1, 1, 100),
    }
    days = {(sku, day, figure): values for (sku, day, figure, _), values in (await read_days(shop)).items()}
    assert days["", date(2026, 11, 10), "accepted"] == days["", date(2026, 11, 11), "paid"] == (1, 3, 300)
    assert ("", date(2026, 11, 10), "paid") not in days


async def test_transaction_that_commits_late_counts_once(shop: CliServices, sale: str, database_url: str) -> None:
    """Later ones are counted meanwhile, and all is counted again while it is open."""
    counter = make_counter(shop)
    owner = await asyncpg.connect(database_url)
    for end in ("commit", "commit", "rollback"):
        late = owner.transaction()
        await late.start()
        order_id = await store_order(owner, shop, sale, {"a": 1}, EVENING, CURRENCY)  # type: ignore[arg-type]
        await owner.execute("UPDATE orders SET status = 'paid' WHERE order_id = $1", order_id)
        await owner.execute(
            "INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason) "
            "VALUES ($1, 1, $2, 'awaiting_payment', 'paid', 'test', 'paid')",
            *(order_id, EVENING),
        )
        before = (await read_days(shop)).get(("a", date(2026, 11, 10), "paid", ""), (0, 0, 0))
        await add_orders(shop, sale, 1, EVENING - timedelta(hours=1))
        await count_all(counter)
        await counter.recount(sale)
        await count_all(counter)
        between = (await read_days(shop))["a", date(2026, 11, 10), "paid", ""]
        assert between == (before[0] + 1, before[1] + 2, before[2] + 200)
        await (late.commit() if end == "commit" else late.rollback())
        await count_all(counter)
        after = (await read_days(shop))["a", date(2026, 11, 10), "paid", ""]
        late_order = (1, 1, 100) if end == "commit" else (0, 0, 0)
        assert after == tuple(old + new for old, new in zip(between, late_order, strict=True))
        await counter.recount(sale)
        await count_all(counter)
        assert (await read_days(shop))["a", date(2026, 11, 10), "paid", ""] == after
    await owner.close()


async def test_counters_that_race_with_writers_and_recounts_count_each_event_once(
    settings: Settings, shop: CliServices, sale: str
) -> None:
    async with open_cli_services(settings) as other, asyncio.timeout(120):
        counters = [make_counter(shop, 3), make_counter(other, 5)]
        has_written = asyncio.Event()

        async def count(counter: EventCounter) -> None:
            while not has_written.is_set():
                await counter.step()

        async def recount() -> None:
            for _ in range(6):
                await make_counter(shop).recount(sale)

        async def write() -> None:
            await asyncio.gather(
                *(add_orders(shop, sale, 40, EVENING + hour * timedelta(hours=1)) for hour in range(3))
            )

        async with asyncio.TaskGroup() as group:
            for counter in counters:
                group.create_task(count(counter))
            await asyncio.gather(write(), recount())
            has_written.set()
        await count_all(*counters)
    sums = [0, 0, 0]
    for (sku, _, figure, _), values in (await read(shop, "sales_by_minute", "minute")).items():
        if (sku, figure) == ("", "paid"):
            sums = [old + new for old, new in zip(sums, values, strict=True)]
    assert sums == [120, 360, 120 * 3 * PRICE]


async def test_order_that_is_stored_during_a_recount_counts_once(
    shop: CliServices, sale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction commits after the snapshot, and before the events are noted again."""
    await add_orders(shop, sale, 2)
    delete_sums = store.delete_sums

    async def store_and_delete(*values: Any) -> None:
        await asyncio.create_task(add_orders(shop, sale, 1))
        await delete_sums(*values)

    monkeypatch.setattr(store, "delete_sums", store_and_delete)
    counter = make_counter(shop, 1)
    await counter.recount(sale)
    await count_all(counter)
    assert (await read_days(shop))["", date(2026, 11, 10), "accepted", ""] == (2, 6, 600)


async def test_recount_begins_again_after_a_step_since_its_snapshot(
    shop: CliServices, sale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_orders(shop, sale, 2)
    counter, try_lock = make_counter(shop), store.try_lock
    attempts: list[int] = []

    async def step_and_lock(connection: Connection) -> bool:
        monkeypatch.setattr(store, "try_lock", try_lock)
        await connection.fetchval("SELECT 1")  # the snapshot
        attempts.append(await asyncio.create_task(counter.step()))
        return await try_lock(connection)

    monkeypatch.setattr(store, "try_lock", step_and_lock)
    await counter.recount(sale)
    await count_all(counter)
    assert attempts == [4]
    assert (await read_days(shop))["", date(2026, 11, 10), "accepted", ""] == (1, 3, 300)


async def test_recount_of_some_days_changes_no_others_and_keeps_visits(shop: CliServices, sale: str) -> None:
    counter = make_counter(shop)
    for day in range(3):
        await add_orders(shop, sale, 2, EVENING + timedelta(days=day))
    await visits.record(shop.db, EVENING, {("viewed", sale, ""): 7, ("carted", sale, "a"): 2})
    await count_all(counter)
    right = await read_days(shop)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales_by_day SET units = units + 5, events = 9 WHERE figure = 'paid'")
        await connection.execute("UPDATE sales_by_minute SET units = units + 5 WHERE figure = 'paid'")
    wrong = await read_days(shop)
    await counter.recount(sale, date(2026, 11, 11), date(2026, 11, 12))
    await count_all(counter)
    recounted = await read_days(shop)
    for key, values in recounted.items():
        assert values == (right if key[1] in (date(2026, 11, 11), date(2026, 11, 12)) else wrong)[key], key
    await counter.recount(sale)
    await count_all(counter)
    assert await read_days(shop) == right
    assert right["", date(2026, 11, 10), "viewed", ""] == (7, 0, 0)


async def test_recount_changes_no_other_sale(shop: CliServices, sale: str, sale_prefix: str) -> None:
    other = f"{sale_prefix}-other"
    await make_sale(shop, other, ITEMS, opens_at=EVENING)
    await add_orders(shop, sale, 2)
    await add_orders(shop, other, 2)
    counter = make_counter(shop)
    await counter.recount(sale)
    await count_all(counter)
    right = await read_days(shop)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales_by_day SET units = 0")
    await counter.recount(other)
    await count_all(counter)
    halves = await read_days(shop)
    key = ("", date(2026, 11, 10), "accepted", "")
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT sale_id, units FROM sales_by_day WHERE sku = '' AND figure = 'accepted'")
    assert sum(row["units"] for row in rows if row["sale_id"] == sale) == 0
    assert sum(row["units"] for row in rows if row["sale_id"] == other) == 6
    assert halves.keys() == right.keys()
    assert key in right


async def test_step_takes_few_events_and_lag_falls_to_nothing(shop: CliServices, sale: str) -> None:
    assert await make_counter(shop).measure_lag() == timedelta()
    await add_orders(shop, sale, 30)  # 30 orders and as many events, a note each
    counter = make_counter(shop, 7)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE events_to_count SET noted_at = noted_at - interval '1 hour'")
    assert await counter.measure_lag() >= timedelta(hours=1)
    taken = []
    while count := await counter.step():
        taken.append(count)
    assert taken == [7] * 8 + [4]
    assert await counter.measure_lag() == timedelta()


async def test_note_with_more_events_than_a_step_is_taken_whole(shop: CliServices, sale: str) -> None:
    async with shop.db.transaction() as connection:
        ids = [await store_order(connection, shop, sale, {"a": 1}, EVENING, CURRENCY) for _ in range(20)]
        for order_id in ids:
            await lapse(connection, order_id, EVENING)
    counter = make_counter(shop)
    await count_all(counter)
    right = await read_days(shop)
    await counter.recount(sale)
    assert await make_counter(shop, 1).step() == 1
    await count_all(counter)
    assert await read_days(shop) == right
    assert right["a", date(2026, 11, 10), "lapsed", "expired"] == (20, 20, 2_000)


async def test_worker_counts_paid_orders(settings: Settings, shop: CliServices, sale: str) -> None:
    async with run_workers(settings, "aftersales_worker"):
        await add_orders(shop, sale, 3)

        async def is_counted() -> bool:
            rows = await read_days(shop)
            return sum(values[0] for key, values in rows.items() if (key[0], key[2]) == ("", "paid")) == 3

        await eventually(is_counted)
