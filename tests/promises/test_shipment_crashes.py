"""P5, P7: who carries parcels on is killed between SF Express and our row; whoever comes next asks under the same
booking, and a parcel is booked once."""

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
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import FakeCarrier, ShippingShop, open_shipping_shop

pytestmark = pytest.mark.drill  # a dozen processes one after the other

_RATES = "carrier,region,from_g,to_g,price,currency,days,cod\nsf_express,CN,0,30000,20.00,CNY,1,yes\n"
_NEW = msgspec.convert({**ADDRESS, "line": "Wensan Road 90"}, Address)
_ORDERS = 8


@dataclass
class SfExpressProcesses(Processes):
    """Processes that know SF Express too, with the secrets that no dump of the settings shows."""

    def environment(self) -> dict[str, str]:
        shipping = self.settings.shipping
        assert shipping.sf_express is not None
        texts = shipping.model_dump(mode="json") | {"sf_express": shipping.sf_express.as_strings()}
        return {**super().environment(), "FLOODGATE_SHIPPING": orjson.dumps(texts).decode()}


@dataclass
class CrashKit:
    """A shop without a driver, SF Express, and drivers as processes. A dead one's jobs are free after a second."""

    ship: ShippingShop
    carrier_kit: CarrierKit
    processes: SfExpressProcesses

    async def dies(self, place: str) -> None:
        running = await self.processes.worker("fulfilment_worker", crash_at=place)
        assert await wait_for_exit(running) == -9, f"it did not come to {place}"

    async def goes_on(self) -> None:
        await self.processes.worker("fulfilment_worker")

    async def only(self) -> Shipment:
        [row] = await self.ship.fetch_rows("SELECT shipment_id FROM shipments")
        return await self.ship.get_shipment(row["shipment_id"])

    async def becomes(self, shipment_id: UUID, status: str, line: str = ADDRESS["line"]) -> None:
        async def look() -> bool:
            now = await self.ship.get_shipment(shipment_id)
            return (now.status, now.address.line, now.task) == (status, line, "track" if status == "booked" else None)

        await eventually(look, timeout_s=20)

    def theirs(self) -> list[SimulatedShipment]:
        return self.carrier_kit.carriers.depot.last(100)

    async def booked(self) -> Shipment:
        """A parcel that is booked, with nobody at work any more."""
        await self.ship.add_order()
        running = await self.processes.worker("fulfilment_worker")

        async def look() -> bool:
            return bool(await self.ship.fetch_value("SELECT count(*) FROM shipments WHERE status = 'booked'"))

        await eventually(look)
        await running.stop()
        return await self.only()

    async def agree(self) -> None:
        """SF will come for what is booked here, under the same numbers, and for nothing else; goods are counted."""
        await self.ship.check_records()
        rows = await self.ship.fetch_rows("SELECT booking_id, tracking_no FROM bookings WHERE outcome = 'booked'")
        ours = {(row["booking_id"].hex, row["tracking_no"]) for row in rows}
        assert {(one.order_no, one.number) for one in self.theirs() if one.state != "cancelled"} == ours
        assert self.carrier_kit.books("sf_express")["booked_more_than_once"] == 0
        assert await self.ship.fetch_value("SELECT count(*) FROM shipments WHERE parked") == 0


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
            "push_key": "nobodypusheshere1234",
            "base_url": str(carrier_kit.http.make_url("/sf_express/std/service")),
        }
        settings = make_settings(
            shipping={"sf_express": account, "tracking_poll_initial_s": 0.2, "tracking_poll_max_s": 0.2},
            driver={"lease_s": 1, "backoff_max_s": 0.5},
        )
        ship = await stack.enter_async_context(open_shipping_shop(shop, settings, rates=_RATES))
        ship.carriers["sf_express"] = FakeCarrier("sf_express")  # for the desk, which calls nobody
        plain = await stack.enter_async_context(run_processes(settings, tmp_path))
        yield CrashKit(ship, carrier_kit, SfExpressProcesses(settings, tmp_path, running=plain.running))


async def test_booked_and_not_noted(kit: CrashKit) -> None:
    """Three drivers die, each after SF has taken a parcel and before that is written down."""
    for _ in range(_ORDERS):
        await kit.ship.add_order()
    for place in ("shipment.after_book", "shipment.after_book:3", "shipment.after_book:2"):
        await kit.dies(place)
    assert len(kit.theirs()) > await kit.ship.fetch_value("SELECT count(*) FROM bookings WHERE outcome = 'booked'")
    await kit.goes_on()

    async def look() -> bool:
        query = "SELECT count(*) FROM shipments WHERE status = 'booked' AND task = 'track'"
        return bool(await kit.ship.fetch_value(query) == _ORDERS)

    await eventually(look, timeout_s=20)
    await kit.agree()
    assert len(kit.theirs()) == await kit.ship.fetch_value("SELECT count(*) FROM bookings") == _ORDERS


async def test_booked_and_not_noted_and_at_the_door_by_then(kit: CrashKit) -> None:
    """SF has brought it before anybody here knows that it would come for it."""
    order_id = await kit.ship.add_order()
    await kit.dies("shipment.after_book")
    [theirs] = kit.theirs()
    kit.carrier_kit.carriers.courier.move(theirs.number, "delivered")
    await kit.goes_on()
    await kit.becomes((await kit.only()).shipment_id, "delivered")
    assert (await kit.only()).tracking_no == theirs.number
    assert await kit.ship.order_status(order_id) == "delivered"
    await kit.agree()


@pytest.mark.parametrize("how", ["refund", "cancel"])
async def test_booked_and_not_noted_and_not_wanted_any_more(kit: CrashKit, how: str) -> None:
    order_id = await kit.ship.add_order()
    await kit.dies("shipment.after_book")
    parcel = await kit.only()
    assert (parcel.status, parcel.tracking_no) == ("planned", None)
    if how == "refund":
        await kit.ship.refund_all(order_id)
    else:
        await kit.ship.fulfilment.cancel(parcel.shipment_id, "not wanted", "dan")
    await kit.dies("shipment.after_cancel")
    assert [one.state for one in kit.theirs()] == ["cancelled"]
    await kit.goes_on()
    await kit.becomes(parcel.shipment_id, "cancelled")
    await kit.agree()


async def test_cancelled_and_not_noted(kit: CrashKit) -> None:
    """For another address: the first booking is over with SF, whoever says so, and one more is made."""
    parcel = await kit.booked()
    await kit.ship.fulfilment.redirect(parcel.shipment_id, _NEW, "moved", "dan")
    await kit.dies("shipment.after_cancel")
    assert [one.state for one in kit.theirs()] == ["cancelled"]
    assert (await kit.ship.get_shipment(parcel.shipment_id)).tracking_no == parcel.tracking_no
    await kit.dies("shipment.after_book")
    await kit.goes_on()
    await kit.becomes(parcel.shipment_id, "booked", _NEW.line)
    assert sorted(one.state for one in kit.theirs()) == ["booked", "cancelled"]
    await kit.agree()


async def test_too_late_and_not_noted(kit: CrashKit) -> None:
    """SF has the parcel: it goes its way, and nobody is told twice that it does."""
    parcel = await kit.booked()
    assert parcel.tracking_no is not None
    kit.carrier_kit.carriers.courier.move(parcel.tracking_no, "picked_up")
    await kit.ship.fulfilment.cancel(parcel.shipment_id, "not wanted", "dan")
    await kit.dies("shipment.after_cancel")
    await kit.goes_on()

    async def look() -> bool:
        return (await kit.ship.get_shipment(parcel.shipment_id)).status == "picked_up"

    await eventually(look)
    kit.carrier_kit.carriers.courier.move(parcel.tracking_no, "delivered")
    await kit.becomes(parcel.shipment_id, "delivered")
    late = [text for text in await kit.ship.list_event_texts(parcel.shipment_id) if "has collected it" in text]
    assert len(late) == 1
    await kit.agree()
