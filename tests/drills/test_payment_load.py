"""P6 at full load: mixed payment methods, faults of providers, and killed processes."""

from __future__ import annotations

import asyncio
import os
from random import Random
from time import perf_counter

import pytest

from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, percentiles_ms
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
    place_orders_at_rate,
)
from tests.drills.payment_checks import check_payments, pay_some_late, summarise_webhooks, wait_until_idle
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(480)]
ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "6000"))
CONNECTIONS = 64
_PAY_WITHIN_S, _SHORT_PAY_WITHIN_S = 60, 30
_IDLE_TIMEOUT_S = _PAY_WITHIN_S + 180.0
_WARM_UP_S, _ORDERS_PER_S = 10.0, 40.0
_KILLS = 12
_MIN_PAYMENTS, _MAX_PAYMENTS = 50, 300  # started between two kills
_SETTINGS = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_JOBS__CALL_TIMEOUT_S": "2",
    "FLOODGATE_JOBS__LEASE_S": "10",
}
_SHORT_LEASES = {**_SETTINGS, "FLOODGATE_JOBS__LEASE_S": "5"}
"""Leases shorter than the longest jobs, so that two workers sometimes work on one row."""
_COUNT_PENDING = "SELECT count(*) FROM payments WHERE status = 'pending'"
_KILLED_ROLES = ("payments", "gateway", "sandbox")
_MEASURED_ROLES = ("payments", "sandbox", "gateway", "writer", "maintenance", "redis")
_FAILPOINT_KILLS = 3
_FAILPOINTS = {
    "created and not recorded": "payment.after_create:150",
    "refunded and not recorded": "refund.after_call:6",
    "captured and not acknowledged": "payment.after_webhook:200",
}


async def _open(stack: LocalStack, rng: Random, pay_within_s: int = _PAY_WITHIN_S) -> PayingCustomers:
    """Open a sale with enough stock, grant store credit, and set the faults of the providers."""
    settings = stack.settings()
    items = {sku: (units, PRICES[sku], None) for sku, units in INITIAL.items()}
    async with open_cli_services(settings) as shop:
        await make_sale(shop, "paying", items, pay_within_s=pay_within_s)
        await make_sale(shop, "trickle", items)
    await grant_credit_to_all(stack)
    await SandboxClient(stack).set_faults()
    return PayingCustomers(ClientRecord("paying", lambda user: token(settings, user), releases_stock=True), rng)


async def _count_paid(stack: LocalStack) -> int:
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        return int(
            await connection.fetchval("SELECT count(*) FROM order_events WHERE to_status IN ('paid', 'confirmed')")
        )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["provider faults"])
async def test_payments_at_full_load_balance(stack: LocalStack, rng: Random) -> None:
    """Kill nothing. Other orders at a constant rate show whether payments slow down order acceptance."""
    customers = await _open(stack, rng)
    others = ClientRecord("trickle", customers.record.make_token)
    load, stop = PayingLoad(stack, customers, CONNECTIONS, ORDERS), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(place_orders_at_rate(stack.port, others, rng, _ORDERS_PER_S, stop))
        await asyncio.sleep(_WARM_UP_S)
        before_load = len(others.latencies_s)
        before, started = cpu_seconds_by_role(stack, _MEASURED_ROLES), perf_counter()
        await load.run()
        paid_per_s, during_load = await _count_paid(stack) / load.seconds, len(others.latencies_s)
        stop.set()
    await wait_until_idle(stack, customers, _IDLE_TIMEOUT_S)
    after, seconds = cpu_seconds_by_role(stack, _MEASURED_ROLES), perf_counter() - started
    late = await pay_some_late(stack, customers, _IDLE_TIMEOUT_S)
    audit, statuses = await check_payments(stack, customers)
    await check_final_state(stack, others, INITIAL, {})
    assert late > 0
    alone, during = (
        percentiles_ms(others.latencies_s[:before_load]),
        percentiles_ms(others.latencies_s[before_load:during_load]),
    )
    print(
        f"\nPayments: {ORDERS} orders over {CONNECTIONS} connections placed in {load.seconds:.1f} s "
        f"({ORDERS / load.seconds:.0f} per second, {paid_per_s:.0f} per second paid or confirmed meanwhile), idle "
        f"after {seconds:.1f} s: {dict(statuses)}, {late} paid late; {customers.format_summary()}\n"
        f"CPU ms per order: {format_cpu_per_order(before, after, ORDERS)}\n"
        f"Acceptance of {_ORDERS_PER_S:.0f} other orders per second: p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms "
        f"before, p50 {during[0]:.1f} ms, p99 {during[1]:.1f} ms during payments ({during_load - before_load} orders)\n"
        f"{await summarise_webhooks(stack)}; difference {audit.differences}"
    )


@pytest.mark.parametrize("stack", [_SHORT_LEASES], indirect=True, ids=["short leases"])
async def test_payment_roles_killed_repeatedly_keep_payments_balanced(stack: LocalStack, rng: Random) -> None:
    """Kill payment workers, gateways and the sandbox in random order while customers pay."""
    customers = await _open(stack, rng)
    load = PayingLoad(stack, customers, CONNECTIONS)
    roles = [_KILLED_ROLES[number % len(_KILLED_ROLES)] for number in range(_KILLS)]
    rng.shuffle(roles)
    victims: list[int] = []
    in_flight: list[int] = []
    async with load.run_in_background(), open_cli_services(stack.settings()) as shop:
        for role in roles:
            await load.wait_for_payments(rng.randrange(_MIN_PAYMENTS, _MAX_PAYMENTS))
            async with shop.db.connection() as connection:
                in_flight.append(await connection.fetchval(_COUNT_PENDING))
            victims += await stack.kill(rng, role)
        await load.wait_for_payments(rng.randrange(_MIN_PAYMENTS, _MAX_PAYMENTS))
    assert len(set(victims)) == _KILLS
    assert min(in_flight) > 0
    assert customers.statuses["connection lost"] + customers.record.statuses["connection lost"] > 0
    await wait_until_idle(stack, customers, _IDLE_TIMEOUT_S)
    late = await pay_some_late(stack, customers, _IDLE_TIMEOUT_S)
    audit, statuses = await check_payments(stack, customers)
    print(
        f"\n{_KILLS} kills ({', '.join(roles)}) in {load.seconds:.1f} s, {min(in_flight)} to {max(in_flight)} payments "
        f"in flight, {customers.record.accepted} orders: {dict(statuses)}, {late} paid late; "
        f"{customers.format_summary()}\norders: {customers.record.format_summary()}\n"
        f"{await summarise_webhooks(stack)}; difference {audit.differences}"
    )


@pytest.mark.parametrize(
    "stack",
    [{**_SHORT_LEASES, "FLOODGATE_FAILPOINT": failpoint} for failpoint in _FAILPOINTS.values()],
    indirect=True,
    ids=list(_FAILPOINTS),
)
async def test_killed_between_provider_and_commit_keeps_payments_balanced(stack: LocalStack, rng: Random) -> None:
    """Kill processes when the provider has done something that our records do not contain yet."""
    customers = await _open(stack, rng, _SHORT_PAY_WITHIN_S)
    load = PayingLoad(stack, customers, CONNECTIONS)
    async with load.run_in_background():
        while (kills := stack.count_in_output("ended with status -9")) < _FAILPOINT_KILLS:
            await load.wait_for_payments(rng.randrange(_MIN_PAYMENTS, _MAX_PAYMENTS))
    await wait_until_idle(stack, customers, _IDLE_TIMEOUT_S)
    late = await pay_some_late(stack, customers, _IDLE_TIMEOUT_S)
    audit, statuses = await check_payments(stack, customers)
    print(
        f"\n{kills} kills at {stack.env['FLOODGATE_FAILPOINT']} in {load.seconds:.1f} s, {customers.record.accepted} "
        f"orders: {dict(statuses)}, {late} paid late; {customers.format_summary()}\n{await summarise_webhooks(stack)}; "
        f"difference {audit.differences}"
    )
