"""P7 at full load: from a paid order to the door with carriers that misbehave; whoever carries parcels on is killed."""

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
from tests.drills.client_record import ClientRecord
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.cpu_cost import cpu_seconds_by_role, format_cpu_per_order
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import PayingLoad, grant_credit_to_all, percentiles, place_orders_at_rate
from tests.drills.receiving_customers import PRICES, STOCK, ReceivingCustomers, import_logistics
from tests.drills.shipment_checks import check_shipments, summarise_tracking, wait_until_idle
from tests.drills.staff_robots import DriverRobots, WarehouseRobot
from tests.support.gateway import token
from tests.support.sales import eventually, make_sale

ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "2000"))
pytestmark = [pytest.mark.drill, pytest.mark.timeout(300 + ORDERS // 10)]
CONNECTIONS, FEW_CONNECTIONS = 32, 6
_AT_REST_S = 120 + ORDERS / 20
_AWAY_S = min(60.0, ORDERS / 200)
_PAY_WITHIN_S = 86_400
"""Nobody is too slow to pay, however long the drill takes."""
_QUIET_S, _PER_S = 8.0, 20.0
_KILLS = 20
_FROM, _TO = ORDERS // 100, 6 * ORDERS // 100  # orders that are begun to be paid between two kills
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
"""A parcel is a day and a half under way, which are 24 seconds; what is not heard of by then is looked for. Carriers
that are away for a minute are asked till they are back, and nobody is given up for that."""
_PARTS = ("fulfilment", "sandbox", "gateway", "payments", "writer", "maintenance", "redis")
_ROLES = ("fulfilment", "sandbox", "gateway")
_PACE = """
SELECT (SELECT count(*) / greatest(extract(epoch FROM max(planned_at) - min(planned_at)), 1) FROM fulfilments)::float8
           AS planned,
       (SELECT count(DISTINCT order_id) / greatest(extract(epoch FROM max(booked_at) - min(booked_at)), 1)
        FROM shipments WHERE booked_at IS NOT NULL)::float8 AS booked,
       (SELECT count(*) / greatest(extract(epoch FROM max(booked_at) - min(booked_at)), 1)
        FROM shipments WHERE booked_at IS NOT NULL)::float8 AS parcels,
       (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM planned_at - paid_at))
        FROM fulfilments WHERE planned_at IS NOT NULL) AS until_planned,
       (SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM requested_at - planned_at))
        FROM bookings JOIN shipments USING (booking_id) WHERE bookings.carrier = 'sf_express') AS until_asked
"""


@asynccontextmanager
async def _open(
    stack: LocalStack, rng: Random
) -> AsyncIterator[tuple[ReceivingCustomers, WarehouseRobot, DriverRobots]]:
    """A sale with goods enough for all, customers with store credit, carriers that misbehave; staff and drivers who
    work till the block ends."""
    settings = stack.settings()
    items = {sku: (units, PRICES[sku], None) for sku, units in STOCK.items()}
    async with AsyncExitStack() as exit_stack:
        shop = await exit_stack.enter_async_context(open_cli_services(settings))
        for sale_id in ("sending", "trickle"):
            await make_sale(shop, sale_id, items, pay_within_s=_PAY_WITHIN_S)
        await import_logistics(shop)
        await grant_credit_to_all(stack)
        await CarrierSandboxClient(stack).misbehave()
        robot, drivers, stop = WarehouseRobot(stack, rng), DriverRobots(stack, shop, rng), asyncio.Event()
        group = await exit_stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(robot.run(stop))
        group.create_task(drivers.run(stop))
        exit_stack.callback(stop.set)
        yield (
            ReceivingCustomers(ClientRecord("sending", lambda user: token(settings, user), returns=True), rng),
            robot,
            drivers,
        )


async def _away_in_the_middle(stack: LocalStack, payers: ReceivingCustomers) -> None:
    async def half() -> bool:
        return payers.statuses["200"] >= ORDERS // 2

    await eventually(half, _AT_REST_S)
    await CarrierSandboxClient(stack).away(_AWAY_S)


async def _pace(stack: LocalStack) -> str:
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        [row] = await connection.fetch(_PACE)
    waits = {name: "p50 {:.1f} s, p99 {:.1f} s".format(*row[name]) for name in ("until_planned", "until_asked")}
    return (
        f"{row['planned']:.0f} orders a second planned ({waits['until_planned']} after they were paid), "
        f"{row['booked']:.0f} booked, as {row['parcels']:.0f} parcels a second; SF asked "
        f"{waits['until_asked']} after that"
    )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["carriers that misbehave"])
async def test_thousands_are_brought_to_the_door(stack: LocalStack, rng: Random) -> None:
    """Nothing is killed. A trickle of other orders shows whether those who order feel those who pack and send."""
    async with _open(stack, rng) as (payers, robot, drivers):
        others = ClientRecord("trickle", payers.record.token)
        load, stop = PayingLoad(stack, payers, CONNECTIONS, ORDERS), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(place_orders_at_rate(stack.port, others, rng, _PER_S, stop))
            await asyncio.sleep(_QUIET_S)
            quiet = len(others.latencies)
            before, started = cpu_seconds_by_role(stack, _PARTS), perf_counter()
            group.create_task(_away_in_the_middle(stack, payers))
            await load.run()
            loud = len(others.latencies)
            stop.set()
        await wait_until_idle(stack, payers, _AT_REST_S)
        after, seconds = cpu_seconds_by_role(stack, _PARTS), perf_counter() - started
    found = await check_shipments(stack, payers, robot.numbers)
    await check_final_state(stack, others, STOCK, {})
    alone, during = percentiles(others.latencies[:quiet]), percentiles(others.latencies[quiet:loud])
    print(
        f"\nShipments: {ORDERS} orders over {CONNECTIONS} connections placed and paid in {load.seconds:.1f} s "
        f"({ORDERS / load.seconds:.0f} a second), at rest after {seconds:.1f} s; {await _pace(stack)}\n"
        f"{found.ends.total()} parcels: {dict(found.ends)}, parked: {dict(found.parked)}; orders {dict(found.orders)}, "
        f"cash {dict(found.cash)}\n"
        f"CPU ms an order: {format_cpu_per_order(before, after, ORDERS)}\n"
        f"Acceptance of {_PER_S:.0f} other orders a second: p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f} ms before, "
        f"p50 {during[0]:.1f} ms, p99 {during[1]:.1f} ms meanwhile ({loud - quiet} orders)\n"
        f"{robot.figures()}\n{drivers.figures()}\n"
        f"{await summarise_tracking(stack)}\ndifference {found.audit.differences}"
    )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["kills"])
async def test_who_carries_parcels_is_killed(stack: LocalStack, rng: Random) -> None:
    """The shipment driver, gateways and the carriers themselves, in any order, while orders flow: not so many that what
    is behind would be all that there is to see."""
    roles = [_ROLES[number % len(_ROLES)] for number in range(_KILLS)]
    rng.shuffle(roles)
    victims: list[int] = []
    async with _open(stack, rng) as (payers, robot, drivers):
        load = PayingLoad(stack, payers, FEW_CONNECTIONS)

        async def enough() -> bool:
            return payers.statuses["200"] >= ORDERS

        async with load.flowing():
            for role in roles:
                await load.more(rng.randrange(_FROM, _TO))
                victims += await stack.kill(rng, role)
            await eventually(enough, _AT_REST_S)
        assert len(set(victims)) == _KILLS
        assert payers.statuses["connection broken"] + payers.record.statuses["connection broken"] > 0
        await wait_until_idle(stack, payers, _AT_REST_S)
    found = await check_shipments(stack, payers, robot.numbers)
    print(
        f"\n{_KILLS} kills ({', '.join(roles)}) in {load.seconds:.1f} s, {payers.record.accepted} orders, "
        f"{found.ends.total()} parcels: {dict(found.ends)}, parked: {dict(found.parked)}; orders {dict(found.orders)}, "
        f"cash {dict(found.cash)}\n{payers.figures()}\norders: {payers.record.figures()}\n"
        f"{robot.figures()}\n{drivers.figures()}\n"
        f"{await summarise_tracking(stack)}\ndifference {found.audit.differences}"
    )
