"""An automatic waiting room in a rush, while its keeper, gateways and Redis are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from random import Random

import pytest

from commerce.kernel.clock import SystemClock, from_ms
from commerce.waiting_rooms.model import RoomSettings
from ops.services import CliServices, open_cli_services
from tests.drills.client_record import ClientRecord
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import run_requests
from tests.drills.room_customers import SKU, RoomRecord, SurprisedOrderRequest
from tests.support.gateway import token
from tests.support.sales import eventually, make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]
SALE_ID, CONNECTIONS, UNITS = "surprise", 128, 100_000
_LATE_CUSTOMERS = 3_000
"""those who come once the room is open; before, as many come as the machine takes until then"""
_STATE_TIMEOUT_S = 60.0
_SOON_OVERLOADED = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_LIMITS__BACKLOG_ORDERS": "20",
    "FLOODGATE_ROOMS__OPENS_AT_REFUSED_PER_S": "10",
    "FLOODGATE_ROOMS__OPENS_AFTER_S": "1",
    "FLOODGATE_ROOMS__CLOSES_BELOW_REFUSED_PER_S": "5",
    "FLOODGATE_ROOMS__CLOSES_AFTER_S": "3",
}


@pytest.mark.parametrize("stack", [_SOON_OVERLOADED], indirect=True, ids=["few orders may wait"])
async def test_room_opens_in_rush_survives_kills_and_closes_when_all_have_ordered(
    stack: LocalStack, rng: Random
) -> None:
    settings = stack.settings()
    record = RoomRecord(ClientRecord(SALE_ID, lambda user: token(settings, user)))
    async with open_cli_services(settings) as shop:
        await make_sale(shop, SALE_ID, {SKU: (UNITS, 399_900, 1)})
        begin = from_ms(SystemClock().now_ms()) - timedelta(minutes=1)
        await shop.rooms.put(SALE_ID, RoomSettings("automatic", begin, max_pace_per_s=2_000), "drill")
        is_open = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_requests(stack.port, rng, CONNECTIONS, _arrive(record, is_open)))
            await _wait_for_state(shop, "serving")
            is_open.set()
            before = record.orders.accepted
            kills = [await stack.kill(rng, "maintenance"), await stack.kill(rng, "gateway", "redis")]
        await _wait_for_state(shop, "standby")
        room = await shop.rooms.get(SALE_ID)
        async with shop.db.connection() as connection:
            changes = await connection.fetch(
                "SELECT action FROM sale_log WHERE sale_id = $1 AND actor = 'room_keeper' ORDER BY log_id", SALE_ID
            )
    audit = await check_final_state(stack, record.orders, {SKU: UNITS}, {SKU: 1})
    actions = [row["action"] for row in changes]
    assert actions == ["room_opened", "room_closed"] * (len(actions) // 2), "opened twice, or closed twice"
    customers = len(record.orders.intended_orders)
    assert (audit.orders, audit.total.available) == (customers, UNITS - customers)
    assert 0 < before < customers
    assert record.numbers
    assert len(set(record.numbers.values())) == len(record.numbers), "a number was given twice"
    print(
        f"\nAutomatic room: {before} orders before it opened, {room.last_number} numbers, {len(actions)} openings and "
        f"closings, {sum(map(len, kills))} kills; {dict(record.statuses)}, difference {audit.differences}"
    )


def _arrive(record: RoomRecord, is_open: asyncio.Event) -> Iterator[SurprisedOrderRequest]:
    """Yield the orders of a crowd that comes until the room is open, and of some who come later."""
    late = 0
    while late < _LATE_CUSTOMERS:
        late += is_open.is_set()
        user = f"u{len(record.orders.intended_orders)}"
        yield SurprisedOrderRequest(record, record.orders.add_intended(user, "key-1", {SKU: 1}))


async def _wait_for_state(shop: CliServices, state: str) -> None:
    async def is_reached() -> bool:
        return (await shop.rooms.get(SALE_ID)).state == state

    await eventually(is_reached, _STATE_TIMEOUT_S)
