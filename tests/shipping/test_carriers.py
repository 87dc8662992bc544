"""The registry of carriers as the settings fill it, and the own fleet."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.kernel.address import Address
from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import NotReady
from commerce.kernel.money import Money
from commerce.shipping.carrier_port import BookingRequest, Carrier, CarrierRegistry, ContentLine
from commerce.shipping.carriers import ADAPTERS, WEBHOOK_SYSTEMS, open_carriers
from commerce.shipping.carriers.own_fleet import OwnFleet
from config.shipping import ShippingSettings

KUAIDI100 = {
    "customer": "0123456789ABCDEF",
    "key": "TestKey00001",
    "salt": "kuaidi100-salt-0001",
    "notify_url": "http://shop.example/v1/webhooks/carriers/kuaidi100",
}
SF_EXPRESS = {
    "partner_id": "Y7hHmkqf",
    "check_word": "0123456789abcdef0123456789abcdef",
    "monthly_card": "7551234567",
    "webhook_key": "0123456789abcdef0123456789abcdef",
}


async def open_registry(**fields: Any) -> CarrierRegistry:
    settings = ShippingSettings.model_validate(fields)
    async with open_carriers(settings, SystemClock(), timeout_s=1, connections=1) as carriers:
        return carriers


async def test_empty_settings_open_no_carrier() -> None:
    assert await open_registry() == CarrierRegistry({}, {})


async def test_full_settings_open_all_carriers() -> None:
    names = {"zto": "zhongtong", "yto": "yuantong"}
    carriers = await open_registry(own_fleet=True, sf_express=SF_EXPRESS, kuaidi100=KUAIDI100, kuaidi100_carriers=names)
    assert list(carriers.by_name) == ["own_fleet", "sf_express", "zto", "yto"]
    assert all(name == carrier.name for name, carrier in carriers.by_name.items())
    systems = {name: carrier.system for name, carrier in carriers.by_name.items()}
    assert systems == {"own_fleet": "own_fleet", "sf_express": "sf_express", "zto": "kuaidi100", "yto": "kuaidi100"}
    assert {name: reader.system for name, reader in carriers.webhook_readers.items()} == {
        "sf_express": "sf_express",
        "kuaidi100": "kuaidi100",
    }


def test_adapters_match_settings_and_webhook_readers() -> None:
    fields = set(ShippingSettings.model_fields)
    for adapter in ADAPTERS:
        assert {adapter.settings_field, *adapter.extra_settings} <= fields
    assert len({adapter.name for adapter in ADAPTERS}) == len(ADAPTERS)
    assert WEBHOOK_SYSTEMS == ("sf_express", "kuaidi100")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kuaidi100": KUAIDI100 | {"salt": "secret"}}, "kuaidi100 salt: generate"),
        ({"kuaidi100": KUAIDI100, "kuaidi100_carriers": {"zto": "x", "yto": "x"}}, "the same code"),
        ({"kuaidi100_carriers": {"zto": "zhongtong"}}, "set kuaidi100 too"),
        (
            {"own_fleet": True, "kuaidi100": KUAIDI100, "kuaidi100_carriers": {"own_fleet": "x"}},
            "two carriers have the name own_fleet",
        ),
        ({"sf_express": SF_EXPRESS | {"partner_id": ""}}, "partner_id"),
    ],
)
async def test_unusable_settings_are_refused_without_secrets(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotReady, match=reason) as error:
        await open_registry(**fields)
    assert "secret" not in str(error.value)


async def test_own_fleet_bookings_are_deterministic_without_calls() -> None:
    fleet: Carrier = OwnFleet()
    assert (fleet.name, fleet.system, fleet.accepts_bookings, fleet.is_external, fleet.needs_subscription) == (
        *("own_fleet", "own_fleet"),
        *(True, False, False),
    )
    address = Address("王芳", "13800000000", "CN", "杭州市", "文三路 1 号")
    numbers = set()
    for booking_id in (UUID(int=0), *(uuid4() for _ in range(500))):
        request = BookingRequest(
            booking_id, uuid4(), address, address, 500, 1, 1, 1, [ContentLine("茶", 1)], Money(1, "CNY")
        )
        confirmation = await fleet.book(request)
        assert confirmation == await fleet.book(request) == await fleet.find_booking(booking_id)
        assert re.fullmatch(r"OF[A-Z2-7]{12}", confirmation.tracking_no)
        numbers.add(confirmation.tracking_no)
        assert await fleet.cancel(booking_id, confirmation.tracking_no) == "cancelled"
    assert len(numbers) == 501
    assert "OFG5DQR77XOGO5" in numbers, "deterministic on every machine"
    await fleet.subscribe("OF", "138")
    assert await fleet.fetch_tracking("OF", "138") == []
