"""P5, P6, P7 at full load: paid orders are cancelled, refused, lost, returned, exchanged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from time import perf_counter
from typing import Any

import pytest

from ops.services import CliServices, open_cli_services
from tests.drills.carrier_sandbox import CARRIER_FAULTS, CarrierSandboxClient
from tests.drills.client_record import ClientRecord
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import PayingLoad, SandboxClient, grant_credit_to_all
from tests.drills.receiving_customers import PRICES, STOCK, import_logistics
from tests.drills.returning_customers import AftersalesRobot, ReturningCustomers
from tests.drills.reversal_checks import check_reversals, wait_until_all_ended
from tests.drills.staff_robots import DriverRobots, WarehouseRobot
from tests.support.gateway import token
from tests.support.sales import eventually, make_sale

ORDERS = int(os.environ.get("FLOODGATE_DRILL_ORDERS", "500"))
pytestmark = [pytest.mark.drill, pytest.mark.timeout(480 + ORDERS // 5)]
CONNECTIONS, FEW_CONNECTIONS = 32, 6
_IDLE_TIMEOUT_S = 180 + ORDERS / 8
_KILLS = 12
_MIN_PAYMENTS, _MAX_PAYMENTS = ORDERS // 100, 6 * ORDERS // 100  # started between two kills
_KILLED_ROLES = ("fulfilment", "payments", "gateway", "sandbox")
_SETTINGS = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_JOBS__CALL_TIMEOUT_S": "2",
    "FLOODGATE_JOBS__LEASE_S": "10",
    "FLOODGATE_JOBS__BACKOFF_MAX_S": "5",
    "FLOODGATE_JOBS__MAX_ATTEMPTS": "40",
    "FLOODGATE_SHIPPING__TRACKING_POLL_INITIAL_S": "40",
    "FLOODGATE_SHIPPING__TRACKING_POLL_MAX_S": "60",
    "FLOODGATE_SHIPPING__COMPLETE_AFTER_S": "10",
    "FLOODGATE_AFTERSALES__UNDELIVERED_REFUND_AFTER_S": "5",
    "FLOODGATE_AFTERSALES__EXCHANGE_PAY_WITHIN_S": "60",
    "FLOODGATE_PAYMENTS__REFUNDS__WAIT_INITIAL_S": "2",
    "FLOODGATE_PAYMENTS__REFUNDS__WAIT_MAX_S": "5",
    "FLOODGATE_PAYMENTS__REFUNDS__WECHATPAY__WINDOW_DAYS": "365",
    "FLOODGATE_PAYMENTS__REFUNDS__WECHATPAY__MIN_INTERVAL_S": "5",
    "FLOODGATE_PAYMENTS__REFUNDS__WECHATPAY__REFUNDS_PER_PAYMENT": "50",
    "FLOODGATE_SANDBOX__TIME_FACTOR": "5400",
}
"""Settings that fit the sandbox's clock, in which a shipment takes 24 seconds."""
_PROVIDER_FAULTS: dict[str, Any] = {
    "approve": "auto",
    "pay_after_ms": 300,
    "webhook_delay_ms": 100,
    "slow_share": 0.05,
    "slow_ms": 3_000,
    "duplicate_share": 0.05,
    "delayed_share": 0.02,
    "extra_delay_ms": 5_000,
    "dropped_share": 0.02,
    "refund_closed_share": 0.1,
    "refund_abnormal_share": 0.05,
    "refund_error_share": 0.1,
    "refund_limited_share": 0.1,
}
_CARRIER_FAULTS = {**CARRIER_FAULTS, "returned_share": 0.08, "lost_share": 0.02}


class _Reversals:
    """A shop with robots of customers, staff and drivers, and what they have done."""

    def __init__(self, stack: LocalStack, shop: CliServices, rng: Random) -> None:
        settings = stack.settings()
        record = ClientRecord("reversing", lambda user: token(settings, user), releases_stock=True)
        self.shop = shop
        self.customers = ReturningCustomers(record, rng)
        self.aftersales = AftersalesRobot(stack, shop, rng, "reversing")
        self.staff = WarehouseRobot(stack, rng)
        self.drivers = DriverRobots(stack, shop, rng)


@asynccontextmanager
async def _open(stack: LocalStack, rng: Random) -> AsyncIterator[_Reversals]:
    """Open a sale with enough stock, grant store credit and set the faults.

    Robots work until the block ends."""
    async with AsyncExitStack() as exit_stack:
        shop = await exit_stack.enter_async_context(open_cli_services(stack.settings()))
        items = {sku: (units, PRICES[sku], None) for sku, units in STOCK.items()}
        await make_sale(shop, "reversing", items, pay_within_s=86_400)
        await import_logistics(shop)
        await grant_credit_to_all(stack)
        await SandboxClient(stack).set_faults(_PROVIDER_FAULTS)
        await CarrierSandboxClient(stack).set_faults(_CARRIER_FAULTS)
        reversals, stop = _Reversals(stack, shop, rng), asyncio.Event()
        group = await exit_stack.enter_async_context(asyncio.TaskGroup())
        for robot in (reversals.staff, reversals.drivers, reversals.aftersales):
            group.create_task(robot.run(stop))
        exit_stack.callback(stop.set)
        yield reversals


async def _finish(stack: LocalStack, reversals: _Reversals, done: str) -> None:
    """Wait for the end of everything, and compare all records."""
    await wait_until_all_ended(stack, reversals.shop, reversals.customers, reversals.aftersales, _IDLE_TIMEOUT_S)
    result = await check_reversals(stack, reversals.shop, reversals.customers)
    actions = reversals.aftersales.actions
    assert min(actions[name] for name in ("request return", "inspect", "resolve")) > 0, actions
    print(
        f"\n{done}; orders {dict(result.orders)}, cases {dict(result.cases)}\n"
        f"{reversals.customers.format_summary()}\n{reversals.aftersales.format_summary()}\n"
        f"{reversals.staff.format_summary()}\n{reversals.drivers.format_summary()}\n"
        f"difference {result.audit.differences}"
    )


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["faults"])
async def test_every_order_ends_and_all_records_agree(stack: LocalStack, rng: Random) -> None:
    """A tenth is cancelled after paying, 8% are refused, 10% returned, 3% exchanged, 2% lost."""
    started = perf_counter()
    async with _open(stack, rng) as reversals:
        load = PayingLoad(stack, reversals.customers, CONNECTIONS, ORDERS)
        await load.run()
        await _finish(stack, reversals, f"{ORDERS} orders placed and paid in {load.seconds:.1f} s")
    print(f"all ended {perf_counter() - started:.0f} s after the first order")


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["kills"])
async def test_roles_killed_repeatedly_keep_reversals_right(stack: LocalStack, rng: Random) -> None:
    """Kill workers, gateways and the sandbox in random order while customers order, cancel and return."""
    roles = [_KILLED_ROLES[number % len(_KILLED_ROLES)] for number in range(_KILLS)]
    rng.shuffle(roles)
    victims: list[int] = []
    async with _open(stack, rng) as reversals:
        load = PayingLoad(stack, reversals.customers, FEW_CONNECTIONS)

        async def are_enough_started() -> bool:
            return reversals.customers.statuses["200"] >= ORDERS

        async with load.run_in_background():
            for role in roles:
                await load.wait_for_payments(rng.randrange(_MIN_PAYMENTS, _MAX_PAYMENTS))
                victims += await stack.kill(rng, role)
            await eventually(are_enough_started, _IDLE_TIMEOUT_S)
        assert len(set(victims)) == _KILLS
        accepted = reversals.customers.record.accepted
        await _finish(stack, reversals, f"{_KILLS} kills ({', '.join(roles)}), {accepted} orders")
