"""P5, P6, P7: workers are killed while an order is being cancelled, and it ends once."""

from __future__ import annotations

import pytest

from tests.cancellations.test_cancellations import cancel, list_releases, read_order, sum_refunds
from tests.promises.test_shipment_crashes import CrashKit, kit
from tests.support.sales import eventually
from tests.support.shipping_shop import PRICE

pytestmark = pytest.mark.drill  # several processes one after the other
__all__ = ["kit"]


async def test_killed_while_cancelling_ends_order_once(kit: CrashKit) -> None:
    shipment = await kit.add_booked_shipment()
    order_id = shipment.order_id
    assert (await cancel(kit.ship, order_id)).status == "fulfilling"
    for failpoint in ("shipment.after_cancel", "cancellation.before_commit"):
        await kit.run_until_killed(failpoint)
        assert await read_order(kit.ship, order_id) == ("fulfilling", None)
    await kit.run_until_killed("cancellation.after_commit")
    await kit.start_worker()

    async def is_idle() -> bool:
        return not await kit.ship.fetch_value("SELECT count(*) FROM jobs WHERE queue <> 'releases'")

    await eventually(is_idle, timeout_s=20)
    assert await read_order(kit.ship, order_id) == ("cancelled", "by_customer")
    assert await list_releases(kit.ship, order_id) == [({"a": 1}, {})]
    assert await sum_refunds(kit.ship, order_id) == PRICE
    await kit.check()
