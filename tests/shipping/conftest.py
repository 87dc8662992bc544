"""A shop that sends parcels, for each test here that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from config.settings import Settings
from ops.commands.common import CliServices
from tests.support.shipping_shop import ShippingShop, open_shipping_shop


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    """Afterwards goods, bookings and histories agree, whatever the test did. A lease outlasts any test: what is to be
    due or over, a test makes so."""
    async with open_shipping_shop(shop, settings, lease_s=60) as found:
        yield found
        await found.check()
