"""P1, P4, P5: returned units are offered to those who waited longest, through crashes and loads."""

from __future__ import annotations

from pathlib import Path

import pytest

import lua
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from commerce.wait_lists.model import WaitListSettings
from config.settings import Settings
from lua import ReserveOutcome
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import eventually, reservation, reserve
from tests.support.wait_lists import ACCEPT_S, SKU, TestWaitList, open_wait_list

UNITS, PEOPLE = 1_000, 5_000
FORGETFUL = 7
"""every so many-th customer lets his offer lapse"""


async def _order_all(wait_list: TestWaitList, users: list[str]) -> set[str]:
    """Order one unit for each user, a hundred per call. Returns those who got it."""
    accepted = set()
    for start in range(0, len(users), 100):
        part = users[start : start + 100]
        orders = [
            reservation(wait_list.shop.ids.new, wait_list.sale_id, {SKU: 1}, user=user, limits={SKU: 1})
            for user in part
        ]
        results = await reserve(wait_list.shop.redis, wait_list.keys, *orders)
        accepted |= {
            user for user, result in zip(part, results, strict=True) if result.outcome is ReserveOutcome.ACCEPTED
        }
    return accepted


async def _is_stored(wait_list: TestWaitList) -> bool:
    return (await lua.read_backlog(wait_list.shop.redis, wait_list.keys)).orders == 0


async def _expire_orders(shop: CliServices, count: int) -> None:
    """End the time to pay of the first `count` orders."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET pay_by = accepted_at + interval '1 ms' WHERE order_id IN "
            "(SELECT order_id FROM orders WHERE status = 'awaiting_payment' ORDER BY user_id LIMIT $1)",
            count,
        )


async def _count_releases(shop: CliServices) -> int:
    async with shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM releases WHERE status = 'applied'"))


async def test_units_of_unpaid_orders_are_offered_in_order_of_numbers(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """1,000 units, 5,000 people on the list; a third of the orders expire, and every seventh offer lapses."""
    wait_list = await open_wait_list(shop, sale_id, units=UNITS, limit=1)
    first_customers = [f"first-{number:04}" for number in range(UNITS)]
    assert len(await _order_all(wait_list, first_customers)) == UNITS
    people = [f"person-{number:04}" for number in range(PEOPLE)]
    for start in range(0, PEOPLE, 500):
        assert await wait_list.numbers(people[start : start + 500]) == list(range(start + 1, start + 501))
    async with run_workers(settings, "order_writer", "release_worker"):
        await eventually(lambda: _is_stored(wait_list))
        await _expire_orders(shop, UNITS // 3)

        async def all_released() -> bool:
            return await _count_releases(shop) == UNITS // 3

        await eventually(all_released)
        assert await wait_list.units() == (0, UNITS // 3, 0)
        answered: set[str] = set()
        served: list[str] = []
        while (await wait_list.step()).offered:
            offered = [user for user in await wait_list.users_in("offered") if user not in answered]
            answered.update(offered)
            willing = [user for user in offered if int(user[-4:]) % FORGETFUL]
            strangers = [f"stranger-{number}" for number in range(20)]
            assert await _order_all(wait_list, [*strangers, *willing]) == set(willing)
            served += willing
            await wait_list.let_pass(ACCEPT_S + 4 if len(willing) < len(offered) else 2)
        await eventually(lambda: _is_stored(wait_list))
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert (audit.differences, audit.total.available) == (0, 0)
    assert audit.total.held + audit.total.sold == UNITS
    assert await wait_list.units() == (0, 0, 0)
    last = int(served[-1][-4:])
    assert served == [person for person in people[: last + 1] if int(person[-4:]) % FORGETFUL]
    states = await wait_list.states()
    assert [states[person] for person in people] == [
        "waiting" if number > last else "taken" if number % FORGETFUL else "lapsed" for number in range(PEOPLE)
    ]
    assert len(served) == UNITS // 3


@pytest.mark.parametrize(
    "point",
    ["wait_list.after_record", "wait_list.after_offer", "wait_list.after_withdraw", "wait_list.after_sale"],
)
async def test_killed_keeper_offers_each_unit_once(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, point: str
) -> None:
    """The keeper is killed at a point of its step, then another one continues."""
    step = point.removeprefix("wait_list.after_")
    wait_list = await open_wait_list(shop, sale_id)
    people = [f"u{number}" for number in range(12)]
    await wait_list.join(people)
    units = 20 if step == "sale" else 5
    async with run_processes(settings, tmp_path) as processes:
        if step == "withdraw":
            await wait_list.return_units(units)
            await wait_list.step()
            await wait_list.end_offers(-3_600_000)  # over, however long the keeper needs to start
        killed = await processes.worker("wait_list_keeper", crash_at=point)
        if step != "withdraw":
            await wait_list.return_units(units)
        assert await wait_for_exit(killed) == -9
        if step == "offer":
            await load_sale(shop.db, shop.redis, shop.clock, sale_id)
        await processes.worker("wait_list_keeper", instance="two")

        async def all_are_offered() -> bool:
            free, held_back, offered = await wait_list.units()
            expected = min(units, len(people))
            return (free, held_back, offered) == (units - expected, 0, expected) and not await _count_unmarked(
                wait_list
            )

        await eventually(all_are_offered)
    offered = people[5:10] if step == "withdraw" else people[:units]
    assert await wait_list.users_in("offered") == offered
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert audit.total.available == units
    holders = await _order_all(wait_list, people)
    assert holders == (set(people) if step == "sale" else set(offered))


async def _count_unmarked(wait_list: TestWaitList) -> int:
    async with wait_list.shop.db.connection() as connection:
        return int(
            await connection.fetchval("SELECT count(*) FROM wait_list_entries WHERE state = 'offered' AND seq IS NULL")
        )


async def test_wiped_redis_loses_no_place_and_no_offer(shop: CliServices, settings: Settings, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id, units=2, limit=1)
    await _order_all(wait_list, ["first-1", "first-2"])
    people = [f"u{number}" for number in range(8)]
    await wait_list.join(people)
    await wait_list.return_units(4)
    await wait_list.step()
    assert await _order_all(wait_list, ["u0"]) == {"u0"}
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _is_stored(wait_list))
    await wait_list.return_units(1)
    names = [key async for key in shop.redis.scan_iter(f"{{sale:{sale_id}}}*")]
    await shop.redis.delete(*names)
    await wait_list.step()  # nothing to do without the sale
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert await wait_list.units() == (0, 1, 3)
    await wait_list.step()
    assert await wait_list.users_in("offered") == people[1:5]
    assert await _order_all(wait_list, people) == set(people[1:5])
    assert (await shop.audit.audit_sale(sale_id)).clean
    await shop.wait_lists.put(sale_id, WaitListSettings("off"), "test")
    change = StockChangeInput(SKU, 1, "found")
    await shop.stock.change(sale_id, shop.ids.new(), change, "test")
    assert await wait_list.units() == (1, 0, 0)
