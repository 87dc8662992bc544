"""Polls keep the pace that a carrier states, whatever makes the job due."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.carriers.kuaidi100 import Kuaidi100Account
from commerce.shipping.carriers.own_fleet import ADAPTER as OWN_FLEET
from config.shipping import Kuaidi100Settings
from tests.shipping.kuaidi100_kit import ACCOUNT_SETTINGS
from tests.support.shipping_shop import ShippingShop

PACE_S = 1_800
OUTCOMES = [None, ExternalOutcomeUnknown("timed out"), ExternalRefusal("503", "wrong signature")]


async def go_back_s(ship: ShippingShop, seconds: int) -> None:
    """Move the last poll and the next one into the past."""
    await ship.fetch_rows(f"UPDATE shipments SET polled_at = polled_at - interval '{seconds} seconds'")


async def add_tracked_shipment(ship: ShippingShop) -> UUID:
    ship.carriers["cheap"].min_poll_interval_s = PACE_S
    _, [shipment] = await ship.add_booked_order()
    assert (shipment.carrier, await ship.find_task(shipment.shipment_id)) == ("cheap", "shipment.track")
    return shipment.shipment_id


@pytest.mark.parametrize("outcome", OUTCOMES, ids=["answered", "no_answer", "refused"])
async def test_poll_before_interval_is_postponed(ship: ShippingShop, outcome: Exception | None) -> None:
    shipment_id = await add_tracked_shipment(ship)
    carrier = ship.carriers["cheap"]
    carrier.next_outcomes = [outcome] if outcome else []
    await ship.make_all_due()
    await ship.work_until_idle()
    assert len(carrier.polls) == 1
    polled = from_ms(ship.shop.clock.now_ms())
    # Staff retry a parked job at once; a lease may end; a bug may make the row due.
    job = await ship.get_job(shipment_id)
    if job.parked:
        await ship.retry(shipment_id)
    else:
        assert timedelta(seconds=PACE_S - 5) < job.due_at - polled, "the retry keeps the pace"
        await ship.make_all_due()
    for seconds in (0, PACE_S - 60):
        await go_back_s(ship, seconds)
        await ship.make_all_due()
        assert await ship.work_until_idle() == ["waiting"]
        assert len(carrier.polls) == 1
    assert (await ship.get_job(shipment_id)).due_at > from_ms(ship.shop.clock.now_ms())
    await go_back_s(ship, 60)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["unchanged"]
    assert len(carrier.polls) == 2


async def test_carrier_without_pace_is_polled_whenever_due(ship: ShippingShop) -> None:
    await ship.add_booked_order()
    for _ in range(3):
        await ship.make_all_due()
        await ship.work_until_idle()
    assert len(ship.carriers["cheap"].polls) == 3


def test_pace_of_kuaidi100_is_half_an_hour_unless_set() -> None:
    assert Kuaidi100Account.load(**ACCOUNT_SETTINGS).min_poll_interval_s == PACE_S
    assert Kuaidi100Settings.model_fields["min_poll_interval_s"].default == PACE_S
    assert Kuaidi100Account.load(**ACCOUNT_SETTINGS, min_poll_interval_s=7_200).min_poll_interval_s == 7_200
    [own_fleet] = OWN_FLEET.create(None, None, None).carriers
    assert own_fleet.min_poll_interval_s == 0
