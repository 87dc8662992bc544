"""P6 at full load: mixed ways to pay, providers that misbehave, and whoever carries payments on is killed."""

from __future__ import annotations

import asyncio
import os
from random import Random
from time import perf_counter

import pytest

from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.cpu_cost import cpu_seconds_by_role, format_cpu_per_order
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import (
    INITIAL,
    PRICES,
    PayingCustomers,
    PayingLoad,
    SandboxClient,
    grant_credit_to_all,
    percentiles,
    place_orders_at_rate,
)
from tests.drills.payment_checks import check_payments, pay_some_late, summarise_webhooks, wait_until_idle
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(480)]
ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "12000"))
CONNECTIONS = 64
_PAY_WITHIN_S, _IN_A_HURRY_S = 60, 30
_SETTLED_S = _PAY_WITHIN_S + 60.0
_QUIET_S, _PER_S = 10.0, 40.0
_KILLS = 20
_FROM, _TO = 50, 300  # orders that are taken between two kills
_SETTINGS = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_JOBS__CALL_TIMEOUT_S": "2",
    "FLOODGATE_JOBS__LEASE_S": "10",
}
_SHORT_LEASES = {**_SETTINGS, "FLOODGATE_JOBS__LEASE_S": "5"}
"""Shorter than a job may take at worst, so that now and then two drivers' worth of work meet in one row."""
_PENDING = "SELECT count(*) FROM payments WHERE status = 'pending'"
_ROLES = ("payments", "gateway", "sandbox")
_PARTS = ("payments", "sandbox", "gateway", "writer", "maintenance", "redis")
_DEATHS = 3
_HURTS = {
    "asked, and not written down": "payment.after_create:150",
    "given back, and not written down": "refund.after_call:6",
    "captured, and not answered": "payment.after_webhook:200",
}


async def _open(stack: LocalStack, rng: Random, pay_within_s: int = _PAY_WITHIN_S) -> PayingCustomers:
    """A sale with goods enough for all, customers with store credit, providers that misbehave."""
    settings = stack.settings()
    items = {sku: (units, PRICES[sku], None) for sku, units in INITIAL.items()}
    async with open_cli_services(settings) as shop:
        await make_sale(shop, "paying", items, pay_within_s=pay_within_s)
        await make_sale(shop, "trickle", items)
    await grant_credit_to_all(stack)
    await SandboxClient(stack).misbehave()
    return PayingCustomers(ClientRecord("paying", lambda user: token(settings, user), returns=True), rng)


async def _decided(stack: LocalStack) -> int:
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        return int(
            await connection.fetchval("SELECT count(*) FROM order_events WHERE to_status IN ('paid', 'confirmed')")
        )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["providers that misbehave"])
async def test_thousands_pay_in_many_ways(stack: LocalStack, rng: Random) -> None:
    """Nothing is killed. A trickle of other orders shows whether those who order feel those who pay."""
    payers = await _open(stack, rng)
    others = ClientRecord("trickle", payers.record.token)
    load, stop = PayingLoad(stack, payers, CONNECTIONS, ORDERS), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(place_orders_at_rate(stack.port, others, rng, _PER_S, stop))
        await asyncio.sleep(_QUIET_S)
        quiet = len(others.latencies)
        before, started = cpu_seconds_by_role(stack, _PARTS), perf_counter()
        await load.run()
        through, loud = await _decided(stack) / load.seconds, len(others.latencies)
        stop.set()
    await wait_until_idle(stack, payers, _SETTLED_S)
    after, seconds = cpu_seconds_by_role(stack, _PARTS), perf_counter() - started
    late = await pay_some_late(stack, payers, _SETTLED_S)
    found, ends = await check_payments(stack, payers)
    await check_final_state(stack, others, INITIAL, {})
    assert late > 0
    alone, during = percentiles(others.latencies[:quiet]), percentiles(others.latencies[quiet:loud])
    print(
        f"\nPayments: {ORDERS} orders over {CONNECTIONS} connections placed in {load.seconds:.1f} s "
        f"({ORDERS / load.seconds:.0f} a second, {through:.0f} a second paid or confirmed meanwhile), at rest after "
        f"{seconds:.1f} s: {dict(ends)}, {late} paid late; {payers.figures()}\n"
        f"CPU ms an order: {format_cpu_per_order(before, after, ORDERS)}\n"
        f"Acceptance of {_PER_S:.0f} other orders a second: p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms before, "
        f"p50 {during[0]:.1f} ms, p99 {during[1]:.1f} ms during payments ({loud - quiet} orders)\n"
        f"{await summarise_webhooks(stack)}; difference {found.differences}"
    )


@pytest.mark.parametrize("stack", [_SHORT_LEASES], indirect=True, ids=["short leases"])
async def test_who_carries_payments_is_killed(stack: LocalStack, rng: Random) -> None:
    """The payment driver, gateways and the providers themselves, in any order, while thousands pay."""
    payers = await _open(stack, rng)
    load = PayingLoad(stack, payers, CONNECTIONS)
    roles = [_ROLES[number % len(_ROLES)] for number in range(_KILLS)]
    rng.shuffle(roles)
    victims: list[int] = []
    in_flight: list[int] = []
    async with load.flowing(), open_cli_services(stack.settings()) as shop:
        for role in roles:
            await load.more(rng.randrange(_FROM, _TO))
            async with shop.db.connection() as connection:
                in_flight.append(await connection.fetchval(_PENDING))
            victims += await stack.kill(rng, role)
        await load.more(rng.randrange(_FROM, _TO))
    assert len(set(victims)) == _KILLS
    assert min(in_flight) > 0
    assert payers.statuses["connection broken"] + payers.record.statuses["connection broken"] > 0
    await wait_until_idle(stack, payers, _SETTLED_S)
    late = await pay_some_late(stack, payers, _SETTLED_S)
    found, ends = await check_payments(stack, payers)
    print(
        f"\n{_KILLS} kills ({', '.join(roles)}) in {load.seconds:.1f} s, {min(in_flight)} to {max(in_flight)} payments "
        f"in flight, {payers.record.accepted} orders: {dict(ends)}, {late} paid late; {payers.figures()}\n"
        f"orders: {payers.record.figures()}\n{await summarise_webhooks(stack)}; difference {found.differences}"
    )


@pytest.mark.parametrize(
    "stack",
    [{**_SHORT_LEASES, "FLOODGATE_FAILPOINT": place} for place in _HURTS.values()],
    indirect=True,
    ids=list(_HURTS),
)
async def test_they_die_where_it_hurts(stack: LocalStack, rng: Random) -> None:
    """Outside it is done, and our books do not say so."""
    payers = await _open(stack, rng, _IN_A_HURRY_S)
    load = PayingLoad(stack, payers, CONNECTIONS)
    async with load.flowing():
        while (deaths := stack.times_said("ended with status -9")) < _DEATHS:
            await load.more(rng.randrange(_FROM, _TO))
    await wait_until_idle(stack, payers, _SETTLED_S)
    late = await pay_some_late(stack, payers, _SETTLED_S)
    found, ends = await check_payments(stack, payers)
    print(
        f"\n{deaths} deaths at {stack.env['FLOODGATE_FAILPOINT']} in {load.seconds:.1f} s, {payers.record.accepted} "
        f"orders: {dict(ends)}, {late} paid late; {payers.figures()}\n{await summarise_webhooks(stack)}; "
        f"difference {found.differences}"
    )
