"""P1 to P4 at full load without kills: few units, orders of several SKUs, impatient customers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from loadtest.bench.machine import CpuMeter
from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, IntendedOrder
from tests.drills.final_checks import check_final_state, run_audit, wait_until_idle
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.support.gateway import token
from tests.support.locust_runs import check_clean, run_locust
from tests.support.sales import eventually, make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]
CONNECTIONS = 64
_TWO_PER_SECOND = {
    "FLOODGATE_LIMITS__ORDERS_PER_USER_PER_S": "2",
    "FLOODGATE_LIMITS__ORDERS_PER_USER_BURST": "1",
}
_EXPECTED_RESULTS = {"202", "200", "sold_out", "over_limit", "too_many_requests", "overloaded"}


def add_repeats(intended_orders: list[IntendedOrder], repeats: int, rng: Random) -> list[IntendedOrder]:
    """Return the orders in sequence, some of them twice.

    Half of the repeats follow so soon that the first request is still in progress. The others repeat early orders,
    which are accepted, at any time after them.
    """
    positions: list[tuple[float, IntendedOrder]] = [(float(n), intended) for n, intended in enumerate(intended_orders)]
    for number in rng.sample(range(len(intended_orders)), repeats // 2):
        positions.append((number + rng.choice([0.1, 1.1, 3.1, 20.1]), intended_orders[number]))
    for number in rng.sample(range(repeats), repeats - repeats // 2):
        positions.append((rng.uniform(number, len(intended_orders)) + 0.2, intended_orders[number]))
    return [intended for _, intended in sorted(positions, key=lambda item: item[0])]


async def run_orders(stack: LocalStack, record: ClientRecord, intended_orders: list[IntendedOrder], rng: Random) -> str:
    """Send all orders over the connections, and check that both gateways work. Returns a summary."""
    loop = asyncio.get_running_loop()
    cpu = CpuMeter({f"gateway {pid}": [pid] for pid in stack.pids("gateway")})
    requests: Iterator[RetriedRequest] = map(record.make_order_request, intended_orders)
    started = loop.time()
    await run_requests(stack.port, rng, CONNECTIONS, requests)
    seconds = loop.time() - started
    used = cpu.read_used()
    assert len(used) == 2
    assert min(used.values()) > 0.2 * max(used.values()), used
    assert set(record.statuses) <= _EXPECTED_RESULTS
    assert record.overlaps > 0
    return (
        f"{len(intended_orders)} requests over {CONNECTIONS} connections in {seconds:.1f} s "
        f"({len(intended_orders) / seconds:.0f} per second): {record.format_summary()}, "
        f"{record.overlaps} repeats during the first request"
    )


async def test_few_units_for_many_customers_are_sold_once(stack: LocalStack, rng: Random) -> None:
    """1,000 units, one each; 20,000 requests, one in ten a repeat."""
    users, units, requests, repeats = 5_000, 1_000, 20_000, 2_000
    initial, limits = {"phone": units}, {"phone": 1}
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "rush", {"phone": (units, 399_900, 1)})
    settings = stack.settings()
    record = ClientRecord("rush", lambda user: token(settings, user))
    user_ids = [f"u{number % users}" for number in range(requests - repeats)]
    rng.shuffle(user_ids)
    intended_orders = [record.add_intended(user, f"key-{n}", {"phone": 1}) for n, user in enumerate(user_ids)]
    summary = await run_orders(stack, record, add_repeats(intended_orders, repeats, rng), rng)
    audit = await check_final_state(stack, record, initial, limits)
    promised = record.promised_orders()
    assert len(promised) == units
    assert len({intended.user for intended in promised.values()}) == units
    assert record.statuses["202"] == units
    assert record.statuses["200"] > repeats // 10
    assert {intended.user for intended in record.intended_orders.values()} == {f"u{number}" for number in range(users)}
    assert (audit.orders, audit.total.available) == (units, 0)
    print(f"\n1,000 units: {summary}; {audit.orders} orders, difference {audit.differences}")


async def test_orders_of_three_skus_sell_out_only_some(stack: LocalStack, rng: Random) -> None:
    """40 SKUs with 50 to 8,000 units each, so that scarce ones sell out. Every third has a limit per user."""
    users, requests, repeats = 3_000, 16_000, 1_600
    initial = {f"sku-{number}": round(50 * 160 ** (number / 39)) for number in range(40)}
    limits = dict.fromkeys(list(initial)[::3], 4)
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "baskets", {sku: (units, 990, limits.get(sku)) for sku, units in initial.items()})
    settings = stack.settings()
    record = ClientRecord("baskets", lambda user: token(settings, user))
    intended_orders = []
    for number in range(requests - repeats):
        units = {sku: rng.randint(1, 3) for sku in rng.sample(list(initial), 3)}
        intended_orders.append(record.add_intended(f"u{rng.randrange(users)}", f"key-{number}", units))
    summary = await run_orders(stack, record, add_repeats(intended_orders, repeats, rng), rng)
    audit = await check_final_state(stack, record, initial, limits)
    sold = record.count_promised_units()
    sold_out = {refusal.sku for refusal in record.refusals if refusal.code == "sold_out"}
    assert 5 <= len(sold_out) <= len(initial) - 5
    assert all(row.available < 3 for row in audit.rows if row.sku in sold_out)
    assert Counter(sold) == {row.sku: row.held + row.sold for row in audit.rows}
    print(
        f"\nSeveral SKUs: {summary}; {audit.orders} orders of {sold.total()} units, {len(sold_out)} of {len(initial)} "
        f"SKUs sold out, difference {audit.differences}"
    )


@pytest.mark.parametrize("stack", [_TWO_PER_SECOND], indirect=True, ids=["two orders per second and user"])
async def test_impatient_crowd_gets_every_unit_once_and_no_more(stack: LocalStack, tmp_path: Path) -> None:
    """Locust's customers, of whom four in five press again at once, until 600 units are gone and beyond."""
    units = 600
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "impatient", {"phone": (units, 399_900, None)})
        await eventually(lambda: stack.shows_sale("impatient"))
        options = ("--sale", "impatient", "--sku", "phone", "--impatient-share", "0.8", "--think-s", "0.1", "-t", "8s")
        result = await run_locust(
            "impatient_crowd", f"http://127.0.0.1:{stack.port}", tmp_path, stack.env, *options, users=80
        )
        check_clean(result)
        impatient = "POST /v1/orders by the impatient"
        assert result.requests[f"{impatient} (too_many_requests)"] > result.requests[impatient] > 0
        assert result.requests["POST /v1/orders"] > 0, "the patient got nothing"
        assert f"units promised in all: {units} (phone {units})" in result.output
        await wait_until_idle(shop, "impatient")
        async with shop.db.connection() as connection:
            stored = await connection.fetchval("SELECT count(*) FROM orders WHERE sale_id = 'impatient'")
    audit = await run_audit(stack, "impatient")
    assert (stored, audit.orders, audit.total.available) == (units, units, 0)
    print(
        f"\nImpatient crowd: {result.requests}; {audit.orders} orders of {units} units, difference {audit.differences}"
    )
