"""P1 to P4 at full load: few units and a crowd, baskets and a partial sell-out. Nothing is killed here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from loadtest.bench.machine import CpuMeter
from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, IntendedOrder
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]
CONNECTIONS = 64
_FORESEEN = {"202", "200", "sold_out", "over_limit", "too_many_requests", "overloaded"}


def with_repeats(wishes: list[IntendedOrder], repeats: int, rng: Random) -> list[IntendedOrder]:
    """Some wishes once more. Half of the repeats come so soon that the first is still on its way; the others are of
    early orders, which were taken, and come at any time after them."""
    order: list[tuple[float, IntendedOrder]] = [(float(number), wish) for number, wish in enumerate(wishes)]
    for number in rng.sample(range(len(wishes)), repeats // 2):
        order.append((number + rng.choice([0.1, 1.1, 3.1, 20.1]), wishes[number]))
    for number in rng.sample(range(repeats), repeats - repeats // 2):
        order.append((rng.uniform(number, len(wishes)) + 0.2, wishes[number]))
    return [wish for _, wish in sorted(order, key=lambda item: item[0])]


async def run(stack: LocalStack, record: ClientRecord, wishes: list[IntendedOrder], rng: Random) -> str:
    """All of them over the connections, with both gateways at work; gives the figures."""
    loop = asyncio.get_running_loop()
    cpu = CpuMeter({f"gateway {pid}": [pid] for pid in stack.pids("gateway")})
    errands: Iterator[RetriedRequest] = (record.order(wish) for wish in wishes)
    started = loop.time()
    await run_requests(stack.port, rng, CONNECTIONS, errands)
    seconds = loop.time() - started
    used = cpu.read_used()
    assert len(used) == 2
    assert min(used.values()) > 0.2 * max(used.values()), used
    assert set(record.statuses) <= _FORESEEN
    assert record.overlaps > 0
    return (
        f"{len(wishes)} requests over {CONNECTIONS} connections in {seconds:.1f} s "
        f"({len(wishes) / seconds:.0f} a second): {record.figures()}, {record.overlaps} repeats met their first"
    )


async def test_one_thousand_units_and_five_thousand_shoppers(stack: LocalStack, rng: Random) -> None:
    """1,000 units, one each; 20,000 requests, one in ten a repeat."""
    users, units, requests, repeats = 5_000, 1_000, 20_000, 2_000
    initial, limits = {"phone": units}, {"phone": 1}
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "rush", {"phone": (units, 399_900, 1)})
    settings = stack.settings()
    record = ClientRecord("rush", lambda user: token(settings, user))
    who = [f"u{number % users}" for number in range(requests - repeats)]
    rng.shuffle(who)
    wishes = [record.wish(user, f"key-{number}", {"phone": 1}) for number, user in enumerate(who)]
    figures = await run(stack, record, with_repeats(wishes, repeats, rng), rng)
    found = await check_final_state(stack, record, initial, limits)
    promised = record.promised()
    assert len(promised) == units
    assert len({wish.user for wish in promised.values()}) == units
    assert record.statuses["202"] == units
    assert record.statuses["200"] > repeats // 10
    assert {wish.user for wish in record.wishes.values()} == {f"u{number}" for number in range(users)}
    assert (found.orders, found.total.available) == (units, 0)
    print(f"\n1,000 units: {figures}; {found.orders} orders, difference {found.differences}")


async def test_baskets_of_three_skus_and_a_partial_sell_out(stack: LocalStack, rng: Random) -> None:
    """40 SKUs, 50 to 8,000 units of each; some are wanted far more than others, and every third has a limit."""
    users, requests, repeats = 3_000, 16_000, 1_600
    initial = {f"sku-{number}": round(50 * 160 ** (number / 39)) for number in range(40)}
    limits = dict.fromkeys(list(initial)[::3], 4)
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "baskets", {sku: (units, 990, limits.get(sku)) for sku, units in initial.items()})
    settings = stack.settings()
    record = ClientRecord("baskets", lambda user: token(settings, user))
    wishes = []
    for number in range(requests - repeats):
        units = {sku: rng.randint(1, 3) for sku in rng.sample(list(initial), 3)}
        wishes.append(record.wish(f"u{rng.randrange(users)}", f"key-{number}", units))
    figures = await run(stack, record, with_repeats(wishes, repeats, rng), rng)
    found = await check_final_state(stack, record, initial, limits)
    taken = record.units()
    gone = {refusal.sku for refusal in record.refusals if refusal.code == "sold_out"}
    assert 5 <= len(gone) <= len(initial) - 5
    assert all(row.available < 3 for row in found.rows if row.sku in gone)
    assert Counter(taken) == {row.sku: row.held + row.sold for row in found.rows}
    print(
        f"\nBaskets: {figures}; {found.orders} orders of {taken.total()} units, {len(gone)} of {len(initial)} SKUs "
        f"sold out, difference {found.differences}"
    )
