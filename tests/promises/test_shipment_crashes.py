"""P5, P7: workers are killed between the call to SF Express and our commit.

The next worker repeats the call under the same booking, so that a shipment is booked once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
from aiohttp.test_utils import TestServer

from commerce.kernel.address import Address
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.sandbox.shipment_store import SimulatedShipment
from ops.services import CliServices
from tests.ops.carrier_kit import IDS, CarrierKit, FakeCarrierClock, WebhookReceiver, open_carrier_kit
from tests.support.fake_carrier import FakeCarrier
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import ShippingShop, open_shipping_shop

pytestmark = pytest.mark.drill  # a dozen processes one after the other

_RATES = "carrier,region,from_g,to_g,price,currency,days,cod\nsf_express,CN,0,30000,20.00,CNY,1,yes\n"
_NEW = msgspec.convert({**ADDRESS, "line": "Wensan Road 90"}, Address)
_ORDERS = 8


@dataclass
class SfExpressProcesses(Processes):
    """Processes whose settings contain the credentials of SF Express, which a dump of the settings masks."""

    def environment(self) -> dict[str, str]:
        shipping = self.settings.shipping
        assert shipping.sf_express is not None
        fields = shipping.model_dump(mode="json") | {"sf_express": shipping.sf_express.as_strings()}
        return {**super().environment(), "FLOODGATE_SHIPPING": orjson.dumps(fields).decode()}


@dataclass
class CrashKit:
    """A shop, a simulated SF Express, and workers as processes with leases of one second."""

    ship: ShippingShop
    carrier_kit: CarrierKit
    processes: SfExpressProcesses

    async def run_until_killed(self, failpoint: str) -> None:
        running = await self.processes.worker("fulfilment_worker", crash_at=failpoint)
        assert await wait_for_exit(running) == -9, f"the worker did not reach {failpoint}"

    async def start_worker(self) -> None:
        await self.processes.worker("fulfilment_worker")

    async def get_only_shipment(self) -> Shipment:
        [row] = await self.ship.fetch_rows("SELECT shipment_id FROM shipments")
        return await self.ship.get_shipment(row["shipment_id"])

    async def wait_for_status(self, shipment_id: UUID, status: str, line: str = ADDRESS["line"]) -> None:
        expected = (status, line, "shipment.track" if status == "booked" else None)

        async def is_reached() -> bool:
            shipment = await self.ship.get_shipment(shipment_id)
            task = await self.ship.find_task(shipment_id)
            return (shipment.status, shipment.address.line, task) == expected

        await eventually(is_reached, timeout_s=20)

    def list_at_carrier(self) -> list[SimulatedShipment]:
        return self.carrier_kit.carriers.shipment_store.list_newest(100)

    async def add_booked_shipment(self) -> Shipment:
        """Add an order, have a worker book its shipment, and stop the worker."""
        await self.ship.add_order()
        running = await self.processes.worker("fulfilment_worker")

        async def is_booked() -> bool:
            return bool(await self.ship.fetch_value("SELECT count(*) FROM shipments WHERE status = 'booked'"))

        await eventually(is_booked)
        await running.stop()
        return await self.get_only_shipment()

    async def check(self) -> None:
        """Check that SF has exactly our bookings, under the same numbers, and that units are counted."""
        await self.ship.check_records()
        rows = await self.ship.fetch_rows("SELECT booking_id, tracking_no FROM bookings WHERE outcome = 'booked'")
        our_bookings = {(row["booking_id"].hex, row["tracking_no"]) for row in rows}
        assert {
            (simulated.order_no, simulated.tracking_no)
            for simulated in self.list_at_carrier()
            if simulated.state != "cancelled"
        } == our_bookings
        assert self.carrier_kit.totals("sf_express")["booked_more_than_once"] == 0
        assert await self.ship.fetch_value("SELECT count(*) FROM jobs WHERE parked") == 0


@pytest.fixture
async def kit(shop: CliServices, make_settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[CrashKit]:
    async with AsyncExitStack() as stack:
        receiver = WebhookReceiver()
        clock = FakeCarrierClock()
        clock.ms = shop.clock.now_ms()
        carrier_kit = await stack.enter_async_context(open_carrier_kit(receiver, clock=clock))
        assert isinstance(carrier_kit.http.server, TestServer)
        account: dict[str, Any] = {
            "partner_id": IDS.sf_express_partner_id,
            "check_word": IDS.sf_express_check_word,
            "monthly_card": IDS.sf_express_monthly_card,
            "webhook_key": "nobodypusheshere1234",
            "base_url": str(carrier_kit.http.make_url("/sf_express/std/service")),
        }
        settings = make_settings(
            shipping={"sf_express": account, "tracking_poll_initial_s": 0.2, "tracking_poll_max_s": 0.2},
            jobs={"lease_s": 1, "backoff_max_s": 0.5},
        )
        ship = await stack.enter_async_context(open_shipping_shop(shop, settings, rates=_RATES))
        ship.carriers["sf_express"] = FakeCarrier("sf_express")  # for staff actions, which call no carrier
        plain = await stack.enter_async_context(run_processes(settings, tmp_path))
        yield CrashKit(ship, carrier_kit, SfExpressProcesses(settings, tmp_path, running=plain.running))


async def test_killed_after_booking_is_booked_once(kit: CrashKit) -> None:
    """Three workers are killed, each after SF has booked a shipment and before our commit."""
    for _ in range(_ORDERS):
        await kit.ship.add_order()
    for failpoint in ("shipment.after_book", "shipment.after_book:3", "shipment.after_book:2"):
        await kit.run_until_killed(failpoint)
    assert len(kit.list_at_carrier()) > await kit.ship.fetch_value(
        "SELECT count(*) FROM bookings WHERE outcome = 'booked'"
    )
    await kit.start_worker()

    async def are_booked() -> bool:
        query = "SELECT count(*) FROM jobs WHERE kind = 'shipment.track'"
        return bool(await kit.ship.fetch_value(query) == _ORDERS)

    await eventually(are_booked, timeout_s=20)
    await kit.check()
    assert len(kit.list_at_carrier()) == await kit.ship.fetch_value("SELECT count(*) FROM bookings") == _ORDERS


async def test_shipment_delivered_after_crash_is_recorded(kit: CrashKit) -> None:
    """SF delivers a shipment before we know that it is booked."""
    order_id = await kit.ship.add_order()
    await kit.run_until_killed("shipment.after_book")
    [simulated] = kit.list_at_carrier()
    kit.carrier_kit.carriers.simulator.move(simulated.tracking_no, "delivered")
    await kit.start_worker()
    await kit.wait_for_status((await kit.get_only_shipment()).shipment_id, "delivered")
    assert (await kit.get_only_shipment()).tracking_no == simulated.tracking_no
    assert await kit.ship.order_status(order_id) == "delivered"
    await kit.check()


@pytest.mark.parametrize("action", ["refund", "cancel"])
async def test_shipment_unwanted_after_crash_is_cancelled(kit: CrashKit, action: str) -> None:
    order_id = await kit.ship.add_order()
    await kit.run_until_killed("shipment.after_book")
    shipment = await kit.get_only_shipment()
    assert (shipment.status, shipment.tracking_no) == ("planned", None)
    if action == "refund":
        await kit.ship.refund_all(order_id)
    else:
        await kit.ship.fulfilment.cancel(shipment.shipment_id, "not wanted", "dan")
    await kit.run_until_killed("shipment.after_cancel")
    assert [simulated.state for simulated in kit.list_at_carrier()] == ["cancelled"]
    await kit.start_worker()
    await kit.wait_for_status(shipment.shipment_id, "cancelled")
    await kit.check()


async def test_killed_after_cancelling_is_redirected_once(kit: CrashKit) -> None:
    """A redirect ends the first booking at SF and makes exactly one more."""
    shipment = await kit.add_booked_shipment()
    await kit.ship.fulfilment.redirect(shipment.shipment_id, _NEW, "moved", "dan")
    await kit.run_until_killed("shipment.after_cancel")
    assert [simulated.state for simulated in kit.list_at_carrier()] == ["cancelled"]
    assert (await kit.ship.get_shipment(shipment.shipment_id)).tracking_no == shipment.tracking_no
    await kit.run_until_killed("shipment.after_book")
    await kit.start_worker()
    await kit.wait_for_status(shipment.shipment_id, "booked", _NEW.line)
    assert sorted(simulated.state for simulated in kit.list_at_carrier()) == ["booked", "cancelled"]
    await kit.check()


async def test_killed_after_late_cancellation_notes_it_once(kit: CrashKit) -> None:
    """SF has the shipment: it continues, and this is noted once."""
    shipment = await kit.add_booked_shipment()
    assert shipment.tracking_no is not None
    kit.carrier_kit.carriers.simulator.move(shipment.tracking_no, "picked_up")
    await kit.ship.fulfilment.cancel(shipment.shipment_id, "not wanted", "dan")
    await kit.run_until_killed("shipment.after_cancel")
    await kit.start_worker()

    async def is_picked_up() -> bool:
        return (await kit.ship.get_shipment(shipment.shipment_id)).status == "picked_up"

    await eventually(is_picked_up)
    kit.carrier_kit.carriers.simulator.move(shipment.tracking_no, "delivered")
    await kit.wait_for_status(shipment.shipment_id, "delivered")
    late = [text for text in await kit.ship.list_event_texts(shipment.shipment_id) if "has collected it" in text]
    assert len(late) == 1
    await kit.check()
