"""P1, P4, P5: units of sold orders return to stock and limit once, in parts, and some never to stock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import UUID

import pytest

import lua
from commerce.jobs import store as jobs
from commerce.jobs.model import JobKey
from commerce.kernel.clock import DAY_MS
from commerce.orders.model import OrderStatus
from commerce.reservations.errors import UnitsNotLeft
from commerce.reservations.reacquisition import StockReacquisition
from commerce.sales.loading import load_sale
from commerce.wait_lists.model import WaitListSettings
from config.settings import Settings
from lua import ReserveOutcome
from ops.services import CliServices
from tests.support.coupons import make_coupon
from tests.support.due_jobs import count_open
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import eventually, expire_all, reservation, reserve
from tests.support.sold_orders import LIMIT, SoldOrders, open_sold_orders


@pytest.fixture
async def sold(shop: CliServices, settings: Settings, sale_id: str) -> AsyncIterator[SoldOrders]:
    """An open sale. After the test all releases can be applied, and audits are clean.

    A rebuild then restores the same."""
    sold = await open_sold_orders(shop, settings, sale_id)
    yield sold
    await sold.apply()
    assert await count_open(shop, "releases") == 0
    rows = (await sold.audit()).rows
    _, taken = await sold.read_units()
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await sold.audit()).rows == rows
    assert (await sold.read_units())[1] == taken


async def test_units_come_back_in_parts_and_the_rest_when_cancelled(sold: SoldOrders) -> None:
    order_id = await sold.place({"a": 5, "b": 2})
    await sold.audit()
    assert await sold.give_back(order_id, {"a": 2, "b": 0})
    row = await sold.audit_row()
    assert (row.available, row.held, row.sold, row.written_off) == (15, 2, 3, 0)
    await sold.apply()
    row = await sold.audit_row()
    assert (row.available, row.held, row.sold, row.written_off) == (17, 0, 3, 0)
    assert await sold.give_back(order_id, {"a": 2}, {"a": 1})
    row = await sold.audit_row()
    assert (row.available, row.held, row.sold, row.written_off) == (17, 2, 1, 0)
    await sold.apply()
    assert await sold.read_units() == ({"a": 18, "b": 18}, {"ann a": 1})
    row = await sold.audit_row()
    assert (row.available, row.held, row.sold, row.written_off) == (18, 0, 1, 1)
    await sold.cancel(order_id, {"b": 1})
    row = await sold.audit_row("b")
    assert (row.available, row.held, row.sold, row.written_off) == (18, 2, 0, 0)
    await sold.apply()
    assert await sold.read_units() == ({"a": 19, "b": 19}, {})
    assert (await sold.audit()).total.written_off == 2


async def test_parts_of_one_transaction_with_its_cancellation_are_counted_once(sold: SoldOrders) -> None:
    """The marks of an order that ceases to be sold take back those of the parts that left it before."""
    order_id = await sold.place({"a": 4})
    await sold.audit()
    await sold.give_back(order_id, {"a": 1})
    await sold.cancel(order_id)
    row = await sold.audit_row()
    assert (row.held, row.sold) == (4, 0)


async def test_every_unit_of_an_order_may_leave_before_it_is_cancelled(sold: SoldOrders) -> None:
    order_id = await sold.place({"a": 2})
    await sold.give_back(order_id, {"a": 2})
    await sold.cancel(order_id)
    await sold.apply()
    assert await sold.read_units() == ({"a": 20, "b": 20}, {})


@pytest.mark.parametrize(
    ("units", "written_off"),
    [({"a": 4}, {}), ({"a": 3, "b": 1}, {}), ({"a": -1}, {}), ({"a": 1}, {"a": 2}), ({"a": 1}, {"b": 1})],
)
async def test_more_units_than_are_left_are_refused(
    sold: SoldOrders, units: Mapping[str, int], written_off: Mapping[str, int]
) -> None:
    order_id = await sold.place({"a": 4})
    await sold.give_back(order_id, {"a": 1})
    with pytest.raises(UnitsNotLeft):
        await sold.give_back(order_id, units, written_off)
    with pytest.raises(UnitsNotLeft):
        await sold.cancel(order_id, {"a": 4})
    await sold.apply()
    assert (await sold.read_units())[0]["a"] == 17


async def test_orders_that_are_not_sold_give_nothing_back(sold: SoldOrders) -> None:
    unpaid, cancelled = await sold.place({"a": 1}, paid=False), await sold.place({"a": 1})
    await sold.cancel(cancelled)
    for order_id in (unpaid, cancelled, sold.shop.ids.new()):
        with pytest.raises(UnitsNotLeft):
            await sold.give_back(order_id, {"a": 1})
    with pytest.raises(UnitsNotLeft):
        await sold.cancel(cancelled)
    with pytest.raises(UnitsNotLeft):
        await sold.cancel(unpaid)


async def test_same_units_given_back_at_once_return_once(sold: SoldOrders) -> None:
    """Twenty decisions race for three units, each with a repeat and a cancellation in between."""
    order_id = await sold.place({"a": 3})

    async def attempt(release_id: UUID) -> bool:
        try:
            return await sold.give_back(order_id, {"a": 1}, release_id=release_id)
        except UnitsNotLeft:
            return False

    async def cancel() -> bool:
        await asyncio.sleep(0)
        await sold.cancel(order_id)
        return False

    ids = [sold.shop.ids.new() for _ in range(10)] * 2
    released = await asyncio.gather(*map(attempt, ids[:12]), cancel(), *map(attempt, ids[12:]), sold.apply())
    assert sum(filter(None, released)) <= 3
    await sold.apply()
    assert await sold.read_units() == ({"a": 20, "b": 20}, {})


async def test_release_id_is_used_once(sold: SoldOrders) -> None:
    order_id, release_id = await sold.place({"a": 3}), sold.shop.ids.new()
    repeats = [sold.give_back(order_id, {"a": 1}, release_id=release_id) for _ in range(8)]
    assert sum(await asyncio.gather(*repeats)) == 1
    for units, written_off in (({"a": 2}, {}), ({"a": 1}, {"a": 1})):
        with pytest.raises(UnitsNotLeft):
            await sold.give_back(order_id, units, written_off, release_id=release_id)
    with pytest.raises(UnitsNotLeft):
        await sold.give_back(order_id, {"a": 1}, release_id=order_id)


async def test_release_worker_killed_after_redis_returns_units_once(
    sold: SoldOrders, settings: Settings, tmp_path: Path
) -> None:
    """Redis has released the units, and the row does not say so.

    A rebuild in between counts them as not released."""
    order_id = await sold.place({"a": 4})
    await sold.give_back(order_id, {"a": 3}, {"a": 1})
    short_lease = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"lease_s": 1})})
    async with run_processes(short_lease, tmp_path) as processes:
        killed = await processes.worker("release_worker", crash_at="release.after_redis")
        assert await wait_for_exit(killed) == -9
    assert await sold.read_units() == ({"a": 18, "b": 20}, {"ann a": 1})
    row = await sold.audit_row()
    assert (row.available, row.held, row.sold, row.written_off) == (18, 0, 1, 1)
    await load_sale(sold.shop.db, sold.shop.redis, sold.shop.clock, sold.sale_id)
    assert await sold.read_units() == ({"a": 16, "b": 20}, {"ann a": 4})
    await sold.audit()

    async def is_applied() -> bool:
        await sold.apply()
        return await count_open(sold.shop, "releases") == 0

    await eventually(is_applied)
    assert await sold.read_units() == ({"a": 18, "b": 20}, {"ann a": 1})


async def test_release_too_old_for_redis_is_counted_by_rebuild(sold: SoldOrders) -> None:
    """Nobody knows if Redis had applied it, so the new load counts it, without what was written off."""
    order_id = await sold.place({"a": 4})
    await sold.give_back(order_id, {"a": 3}, {"a": 1})
    await sold.execute("UPDATE releases SET created_at = created_at - interval '9 days'")
    await sold.apply()
    assert await sold.read_units() == ({"a": 16, "b": 20}, {"ann a": 4})
    await load_sale(sold.shop.db, sold.shop.redis, sold.shop.clock, sold.sale_id)
    assert await sold.read_units() == ({"a": 18, "b": 20}, {"ann a": 1})


async def test_limit_returns_with_units_that_are_written_off(sold: SoldOrders) -> None:
    order_id = await sold.place({"a": LIMIT})

    async def buy_more() -> ReserveOutcome:
        order = reservation(sold.shop.ids.new, sold.sale_id, {"a": 1}, user="ann", limits={"a": LIMIT})
        [result] = await reserve(sold.shop.redis, sold.keys, order)
        return result.outcome

    assert await buy_more() is ReserveOutcome.OVER_LIMIT
    await sold.give_back(order_id, {"a": 1}, {"a": 1})
    assert await buy_more() is ReserveOutcome.OVER_LIMIT
    await sold.apply()
    assert await buy_more() is ReserveOutcome.ACCEPTED
    assert await buy_more() is ReserveOutcome.OVER_LIMIT
    assert (await sold.audit_row()).written_off == 1


async def test_released_units_are_kept_for_the_wait_list(sold: SoldOrders) -> None:
    order_id = await sold.place({"b": 4})
    await sold.shop.wait_lists.put(sold.sale_id, WaitListSettings(), "test")
    await sold.give_back(order_id, {"b": 3}, {"b": 1})
    await sold.apply()
    cut = await lua.cut(sold.shop.redis, sold.keys)
    assert (cut.stock["b"], cut.held_back) == (16, {"b": 2})


async def test_coupon_comes_back_when_the_order_is_cancelled(sold: SoldOrders) -> None:
    """Parts leave the coupon with the order; the last of it returns with the rest, once."""
    await make_coupon(sold.shop, sold.sale_id, "TEN", 1)
    order_id = await sold.place({"a": 2, "coupon:TEN": 1})
    await sold.give_back(order_id, {"a": 1})
    await sold.apply()
    stock, taken = await sold.read_units()
    assert (stock["coupon:TEN"], taken["ann coupon:TEN"]) == (0, 1)
    await sold.cancel(order_id)
    await sold.apply()
    stock, taken = await sold.read_units()
    assert (stock, taken) == ({"a": 20, "b": 20, "coupon:TEN": 1}, {})


async def test_order_that_was_paid_late_can_be_cancelled_again(sold: SoldOrders) -> None:
    """A reacquisition has undone the release with the id of the order."""
    order_id = await sold.place({"a": 3}, paid=False)
    await expire_all(sold.shop)
    assert await sold.reservations.expire_unpaid_orders() == 1
    await sold.apply()
    await sold.audit()
    reacquisition = StockReacquisition(sold.shop.db, sold.shop.redis, sold.shop.clock, sold.shop.ids)
    assert await reacquisition.reacquire(order_id) == "reacquired"
    await sold.advance(order_id, OrderStatus.CANCELLED, OrderStatus.PAID)
    assert (await sold.audit_row()).sold == 3
    await sold.give_back(order_id, {"a": 1})
    await sold.cancel(order_id)
    assert (await sold.audit_row()).held == 3
    await sold.apply()
    assert await sold.read_units() == ({"a": 20, "b": 20}, {})


async def test_sale_that_closed_weeks_ago_takes_units_back(sold: SoldOrders) -> None:
    """A closed sale stays in Redis. Releases of one that is not there wait for its rebuild."""
    order_id = await sold.place({"a": 3})
    await sold.shop.sales.close(sold.sale_id, "test")
    await sold.execute(
        "UPDATE sales SET closed_at = closed_at - interval '60 days'",
        "UPDATE orders SET accepted_at = accepted_at - interval '60 days'",
    )
    await sold.give_back(order_id, {"a": 1})
    await sold.apply()
    assert (await sold.read_units())[0]["a"] == 18
    await lua.unload(sold.shop.redis, sold.keys, sold.shop.clock.now_ms() // DAY_MS)
    await sold.give_back(order_id, {"a": 1}, {"a": 1})
    await sold.reservations.apply_due_releases()
    async with sold.shop.db.connection() as connection:
        error = await connection.fetchval("SELECT last_error FROM jobs WHERE queue = 'releases'")
    assert "floodgate rebuild" in error
    await load_sale(sold.shop.db, sold.shop.redis, sold.shop.clock, sold.sale_id)

    async def is_applied() -> bool:
        await sold.apply()
        return await count_open(sold.shop, "releases") == 0

    await eventually(is_applied)
    assert (await sold.audit_row()).written_off == 1


WRONG_RELEASES = {
    "more units than the order has": "UPDATE releases SET units = '{\"a\": 4}' WHERE part_of IS NOT NULL",
    "units of another SKU": "UPDATE releases SET units = '{\"b\": 1}' WHERE part_of IS NOT NULL",
    "more is written off than leaves": "UPDATE releases SET written_off = '{\"a\": 2}' WHERE part_of IS NOT NULL",
    "it is of another customer": "UPDATE releases SET user_id = 'ben' WHERE part_of IS NOT NULL",
    "its order was never paid": "UPDATE orders SET status = 'awaiting_payment', status_seq = 0 WHERE user_id = 'ann'",
    "its job is lost": "DELETE FROM jobs WHERE queue = 'releases'",
    "the rest of a cancelled order is not released": "DELETE FROM releases WHERE part_of IS NULL",
    "the rest of a cancelled order is too much": "UPDATE releases SET units = '{\"a\": 3}' WHERE part_of IS NULL",
}


@pytest.mark.parametrize("name", WRONG_RELEASES)
async def test_wrong_release_is_found(shop: CliServices, settings: Settings, sale_id: str, name: str) -> None:
    sold = await open_sold_orders(shop, settings, sale_id)
    first, second = await sold.place({"a": 3}), await sold.place({"a": 3}, "ben")
    for order_id in (first, second):
        await sold.give_back(order_id, {"a": 1})
    await sold.cancel(second)
    await sold.audit()
    await sold.execute("ALTER TABLE releases DROP CONSTRAINT releases_written_off_is_part", WRONG_RELEASES[name])
    audits = [await shop.audit.audit_changes(sale_id), await shop.audit.audit_sale(sale_id)]
    for audit in audits[name == "its job is lost" :]:  # jobs leave no marks
        assert "P5" in {finding.promise for finding in audit.findings}


async def test_jobs_of_parts_belong_to_their_order(sold: SoldOrders) -> None:
    order_id, release_id = await sold.place({"a": 3}), sold.shop.ids.new()
    await sold.give_back(order_id, {"a": 1}, release_id=release_id)
    async with sold.shop.db.connection() as connection:
        rows = await jobs.list_of_order(connection, order_id)
        key = JobKey("releases", release_id)
        assert await jobs.list_orders(connection, [key]) == {key: order_id}
    assert {row.subject for row in rows if row.queue == "releases"} == {release_id}
