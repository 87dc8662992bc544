"""P1 to P5 for coupons at full load: processes are killed, and no coupon is used twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from random import Random

import pytest

from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, IntendedOrder
from tests.drills.final_checks import check_final_state, run_audit
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.support.coupons import make_coupon
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]
CONNECTIONS = 64
_COUPON = "coupon:TEN"
_USERS = 5_000
_INITIAL = {"tea": 1_000_000, _COUPON: 3_000}
_LIMITS = {_COUPON: 1}
_USED_BETWEEN_KILLS = 400
_STALLED_AFTER_S = 60.0


class CouponLoad:
    """Orders of many customers over all connections, until no coupon is left for a while.

    Three of four present the coupon, and a fifth repeat a recent order.
    """

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        settings = stack.settings()
        self.record = ClientRecord("coupons", lambda user: token(settings, user))
        self.is_stopping = False
        self._stack = stack
        self._rng = rng

    async def run(self) -> None:
        await run_requests(self._stack.port, self._rng, CONNECTIONS, self._generate_requests())

    def count_used(self) -> int:
        return self.record.count_promised_units()[_COUPON]

    def _generate_requests(self) -> Iterator[RetriedRequest]:
        recent: deque[IntendedOrder] = deque(maxlen=200)
        while not self.is_stopping:
            if recent and self._rng.random() < 0.2:
                yield self.record.make_order_request(self._rng.choice(recent))
                continue
            units = {"tea": 1, _COUPON: 1} if self._rng.random() < 0.75 else {"tea": 1}
            key = f"key-{len(self.record.intended_orders)}"
            recent.append(self.record.add_intended(f"u{self._rng.randrange(_USERS)}", key, units))
            yield self.record.make_order_request(recent[-1])

    async def wait_for_coupons(self) -> None:
        """Wait until more coupons are used, or all."""
        target = min(self.count_used() + _USED_BETWEEN_KILLS, _INITIAL[_COUPON])
        deadline = asyncio.get_running_loop().time() + _STALLED_AFTER_S
        while self.count_used() < target:
            assert asyncio.get_running_loop().time() < deadline, f"no orders: {self.record.format_summary()}"
            await asyncio.sleep(0.05)


async def test_coupons_are_used_once_while_processes_are_killed(stack: LocalStack, rng: Random) -> None:
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "coupons", {"tea": (_INITIAL["tea"], 990, None)})
        await make_coupon(shop, "coupons", "TEN", _INITIAL[_COUPON])
    load = CouponLoad(stack, rng)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for roles in (("gateway",), ("redis",), ("writer",), ("gateway", "redis"), ("writer", "gateway")):
            await load.wait_for_coupons()
            await stack.kill(rng, *roles)
        while load.count_used() < _INITIAL[_COUPON]:
            await load.wait_for_coupons()
        await asyncio.sleep(1)  # orders go on while the coupon is used up
        await run_audit(stack, "coupons")
        load.is_stopping = True
    assert load.record.statuses["coupon_used_up"] > 0
    assert load.record.statuses["coupon_limit"] > 0
    audit = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    assert load.count_used() == _INITIAL[_COUPON]
    print(f"\n{load.count_used()} coupons used, difference {audit.differences}: {load.record.format_summary()}")
