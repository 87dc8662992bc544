"""P7 at full load: from paid orders to delivery, with faults of carriers and with killed processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from time import perf_counter

import pytest

from ops.services import open_cli_services
from tests.drills.carrier_sandbox import CarrierSandboxClient
from tests.drills.client_record import ClientRecord, percentiles_ms
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.cpu_cost import cpu_seconds_by_role, format_cpu_per_order
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import PayingLoad, grant_credit_to_all, place_orders_at_rate
from tests.drills.receiving_customers import PRICES, STOCK, ReceivingCustomers, import_logistics
from tests.drills.shipment_checks import check_shipments, summarise_tracking, wait_until_idle
from tests.drills.staff_robots import DriverRobots, WarehouseRobot
from tests.support.gateway import token
from tests.support.sales import eventually, make_sale

ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "2000"))
pytestmark = [pytest.mark.drill, pytest.mark.timeout(300 + ORDERS // 10)]
CONNECTIONS, FEW_CONNECTIONS = 32, 6
_IDLE_TIMEOUT_S = 120 + ORDERS / 20
_OUTAGE_S = min(60.0, ORDERS / 200)
_PAY_WITHIN_S = 86_400
"""Long enough that no order expires, however long the drill takes."""
_WARM_UP_S, _ORDERS_PER_S = 8.0, 20.0
_KILLS = 12
_MIN_PAYMENTS, _MAX_PAYMENTS = ORDERS // 100, 6 * ORDERS // 100  # started between two kills
_SETTINGS = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_JOBS__CALL_TIMEOUT_S": "2",
    "FLOODGATE_JOBS__LEASE_S": "10",
    "FLOODGATE_JOBS__BACKOFF_MAX_S": "5",
    "FLOODGATE_JOBS__MAX_ATTEMPTS": "40",
    "FLOODGATE_SHIPPING__TRACKING_POLL_INITIAL_S": "40",
    "FLOODGATE_SHIPPING__TRACKING_POLL_MAX_S": "60",
    "FLOODGATE_SHIPPING__STALLED_AFTER_S": "30",
    "FLOODGATE_SANDBOX__TIME_FACTOR": "5400",
}
"""Settings that fit the sandbox's clock.

A shipment takes a day and a half, which is 24 seconds here; polling starts after that. The attempts of a job outlast
the outage of the carriers, so that no shipment is parked for it.
"""
_MEASURED_ROLES = ("fulfilment", "sandbox", "gateway", "payments", "writer", "maintenance", "redis")
_KILLED_ROLES = ("fulfilment", "sandbox", "gateway")
_MEASURE_RATES = """
SELECT (SELECT count(*) / greatest(extract(epoch FROM max(planned_at) - min(planned_at)), 1) FROM fulfilments)::float8
           AS planned,
       (SELECT count(DISTINCT order_id) / greatest(extract(epoch FROM max(booked_at) - min(booked_at)), 1)
        FROM shipments WHERE booked_at IS NOT NULL)::float8 AS booked,
       (SELECT count(*) / greatest(extract(epoch FROM max(booked_at) - min(booked_at)), 1)
        FROM shipments WHERE booked_at IS NOT NULL)::float8 AS shipments,
       (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM planned_at - paid_at))
        FROM fulfilments WHERE planned_at IS NOT NULL) AS planning_s,
       (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM requested_at - planned_at))
        FROM bookings JOIN shipments USING (booking_id) WHERE bookings.carrier = 'sf_express') AS requesting_s
"""


@asynccontextmanager
async def _open(
    stack: LocalStack, rng: Random
) -> AsyncIterator[tuple[ReceivingCustomers, WarehouseRobot, DriverRobots]]:
    """Open a sale with enough stock, grant store credit and set the faults of the carriers.

    Robots of staff and drivers work until the block ends."""
    settings = stack.settings()
    items = {sku: (units, PRICES[sku], None) for sku, units in STOCK.items()}
    async with AsyncExitStack() as exit_stack:
        shop = await exit_stack.enter_async_context(open_cli_services(settings))
        for sale_id in ("sending", "trickle"):
            await make_sale(shop, sale_id, items, pay_within_s=_PAY_WITHIN_S)
        await import_logistics(shop)
        await grant_credit_to_all(stack)
        await CarrierSandboxClient(stack).set_faults()
        robot, drivers, stop = WarehouseRobot(stack, rng), DriverRobots(stack, shop, rng), asyncio.Event()
        group = await exit_stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(robot.run(stop))
        group.create_task(drivers.run(stop))
        exit_stack.callback(stop.set)
        yield (
            ReceivingCustomers(ClientRecord("sending", lambda user: token(settings, user), releases_stock=True), rng),
            robot,
            drivers,
        )


async def _interrupt_carriers(stack: LocalStack, customers: ReceivingCustomers) -> None:
    """Make the carriers unavailable for a while after half of the payments."""

    async def are_half_started() -> bool:
        return customers.statuses["200"] >= ORDERS // 2

    await eventually(are_half_started, _IDLE_TIMEOUT_S)
    await CarrierSandboxClient(stack).set_unavailable(_OUTAGE_S)


async def _summarise_rates(stack: LocalStack) -> str:
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        [row] = await connection.fetch(_MEASURE_RATES)
    waits = {name: "p50 {:.1f} s, p99 {:.1f} s".format(*row[name]) for name in ("planning_s", "requesting_s")}
    return (
        f"{row['planned']:.0f} orders per second planned ({waits['planning_s']} after they were paid), "
        f"{row['booked']:.0f} booked, as {row['shipments']:.0f} shipments per second; SF requested "
        f"{waits['requesting_s']} after that"
    )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["carrier faults"])
async def test_shipments_at_full_load_match_orders(stack: LocalStack, rng: Random) -> None:
    """Kill nothing. Other orders at a constant rate show whether shipping slows down order acceptance."""
    async with _open(stack, rng) as (customers, robot, drivers):
        others = ClientRecord("trickle", customers.record.make_token)
        load, stop = PayingLoad(stack, customers, CONNECTIONS, ORDERS), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(place_orders_at_rate(stack.port, others, rng, _ORDERS_PER_S, stop))
            await asyncio.sleep(_WARM_UP_S)
            before_load = len(others.latencies_s)
            before, started = cpu_seconds_by_role(stack, _MEASURED_ROLES), perf_counter()
            group.create_task(_interrupt_carriers(stack, customers))
            await load.run()
            during_load = len(others.latencies_s)
            stop.set()
        await wait_until_idle(stack, customers, _IDLE_TIMEOUT_S)
        after, seconds = cpu_seconds_by_role(stack, _MEASURED_ROLES), perf_counter() - started
    result = await check_shipments(stack, customers, robot.tracking_nos)
    await check_final_state(stack, others, STOCK, {})
    alone, during = (
        percentiles_ms(others.latencies_s[:before_load]),
        percentiles_ms(others.latencies_s[before_load:during_load]),
    )
    print(
        f"\nShipments: {ORDERS} orders over {CONNECTIONS} connections placed and paid in {load.seconds:.1f} s "
        f"({ORDERS / load.seconds:.0f} per second), idle after {seconds:.1f} s; {await _summarise_rates(stack)}\n"
        f"{result.ended.total()} shipments: {dict(result.ended)}, parked: {dict(result.parked)}; "
        f"orders {dict(result.orders)}, cash {dict(result.cash)}\n"
        f"CPU ms per order: {format_cpu_per_order(before, after, ORDERS)}\n"
        f"Acceptance of {_ORDERS_PER_S:.0f} other orders per second: p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms "
        f"before, p50 {during[0]:.1f} ms, p99 {during[1]:.1f} ms meanwhile ({during_load - before_load} orders)\n"
        f"{robot.format_summary()}\n{drivers.format_summary()}\n"
        f"{await summarise_tracking(stack)}\ndifference {result.audit.differences}"
    )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["kills"])
async def test_shipping_roles_killed_repeatedly_keep_shipments_right(stack: LocalStack, rng: Random) -> None:
    """Kill fulfilment workers, gateways and the sandbox in random order while customers order.

    The load is low, so that workers keep up and each kill hits jobs of every kind."""
    roles = [_KILLED_ROLES[number % len(_KILLED_ROLES)] for number in range(_KILLS)]
    rng.shuffle(roles)
    victims: list[int] = []
    async with _open(stack, rng) as (customers, robot, drivers):
        load = PayingLoad(stack, customers, FEW_CONNECTIONS)

        async def are_enough_started() -> bool:
            return customers.statuses["200"] >= ORDERS

        async with load.run_in_background():
            for role in roles:
                await load.wait_for_payments(rng.randrange(_MIN_PAYMENTS, _MAX_PAYMENTS))
                victims += await stack.kill(rng, role)
            await eventually(are_enough_started, _IDLE_TIMEOUT_S)
        assert len(set(victims)) == _KILLS
        assert customers.statuses["connection lost"] + customers.record.statuses["connection lost"] > 0
        await wait_until_idle(stack, customers, _IDLE_TIMEOUT_S)
    result = await check_shipments(stack, customers, robot.tracking_nos)
    print(
        f"\n{_KILLS} kills ({', '.join(roles)}) in {load.seconds:.1f} s, {customers.record.accepted} orders, "
        f"{result.ended.total()} shipments: {dict(result.ended)}, parked: {dict(result.parked)}; "
        f"orders {dict(result.orders)}, cash {dict(result.cash)}\n{customers.format_summary()}\n"
        f"orders: {customers.record.format_summary()}\n"
        f"{robot.format_summary()}\n{drivers.format_summary()}\n"
        f"{await summarise_tracking(stack)}\ndifference {result.audit.differences}"
    )
