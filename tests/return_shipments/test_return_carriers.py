"""Returns with SF Express: what it is asked for, and simulated shipments with faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
from aiohttp.test_utils import TestServer

from commerce.kernel.clock import SystemClock
from commerce.kernel.external import ExternalRefusal
from commerce.kernel.http_client import open_transport
from commerce.kernel.money import Money
from commerce.shipping.carrier_port import BookingRequest, ContentLine
from commerce.shipping.carriers.own_fleet.adapter import OwnFleet
from commerce.shipping.carriers.sf_express import SfExpress, SfExpressAccount
from commerce.shipping.carriers.sf_express.orders import make_order
from ops.sandbox.faults import CarrierFaults
from tests.ops.carrier_kit import IDS, CarrierKit, WebhookReceiver, open_carrier_kit
from tests.shipping.sf_express_kit import ACCOUNT_SETTINGS, RECIPIENT, SENDER

_REQUEST = BookingRequest(
    booking_id=uuid4(),
    order_id=uuid4(),
    sender=RECIPIENT,
    recipient=SENDER,
    weight_g=500,
    length_mm=100,
    width_mm=100,
    height_mm=100,
    contents=[ContentLine("茶", 1)],
    value=Money(100, "CNY"),
    is_return=True,
)


@pytest.fixture
async def kit() -> AsyncIterator[CarrierKit]:
    async with open_carrier_kit(WebhookReceiver()) as kit:
        yield kit


@pytest.fixture
async def sf_express(kit: CarrierKit) -> AsyncIterator[SfExpress]:
    """The adapter, with the simulated SF Express behind it."""
    assert isinstance(kit.http.server, TestServer)
    account = SfExpressAccount.load(
        partner_id=IDS.sf_express_partner_id,
        check_word=IDS.sf_express_check_word,
        monthly_card=IDS.sf_express_monthly_card,
        webhook_key="nobodypusheshere1234",
        base_url=str(kit.http.make_url("/sf_express/std/service")),
    )
    async with open_transport(timeout_s=5, connections=1) as transport:
        yield SfExpress(account, transport, SystemClock())


def test_sf_collects_return_at_customer_for_nothing() -> None:
    account = SfExpressAccount.load(**ACCOUNT_SETTINGS)
    returned, sent = (make_order(each, account) for each in (_REQUEST, _outward()))
    assert (returned["isDocall"], returned["payMethod"], returned["monthlyCard"]) == (1, 3, account.monthly_card)
    assert ("isDocall" in sent, sent["payMethod"]) == (False, 1)
    assert [contact["contactType"] for contact in returned["contactInfoList"]] == [1, 2]
    assert returned["contactInfoList"][0]["contact"] == RECIPIENT.name


def _outward() -> BookingRequest:
    return msgspec.structs.replace(_REQUEST, is_return=False)


def test_own_fleet_collects_no_returns() -> None:
    assert not OwnFleet.collects_returns


async def test_simulated_sf_collects_return_and_moves_it(kit: CarrierKit, sf_express: SfExpress) -> None:
    request = msgspec.structs.replace(_REQUEST, booking_id=uuid4())
    confirmation = await sf_express.book(request)
    assert await sf_express.book(request) == confirmation
    kit.carriers.simulator.move(confirmation.tracking_no, "delivered")
    events = await sf_express.fetch_tracking(confirmation.tracking_no, RECIPIENT.phone)
    assert (events[0].status, events[-1].status) == ("picked_up", "delivered")
    assert await sf_express.cancel(request.booking_id, confirmation.tracking_no) == "too_late"


async def test_simulated_sf_loses_or_refuses_return(kit: CarrierKit, sf_express: SfExpress) -> None:
    request = msgspec.structs.replace(_REQUEST, booking_id=uuid4())
    confirmation = await sf_express.book(request)
    kit.carriers.simulator.move(confirmation.tracking_no, "lost")
    events = await sf_express.fetch_tracking(confirmation.tracking_no, RECIPIENT.phone)
    assert events[-1].status == "lost"
    kit.carriers.simulator.set_faults("sf_express", CarrierFaults(refused_share=1))
    with pytest.raises(ExternalRefusal):
        await sf_express.book(msgspec.structs.replace(_REQUEST, booking_id=uuid4()))
