"""Fixture of the returns of a shop whose cases do not follow their shipments."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from config.settings import Settings
from tests.support.return_shop import ReturnShop, open_return_shop
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
async def returns(ship: ShippingShop, settings: Settings) -> AsyncIterator[ReturnShop]:
    async with open_return_shop(ship, settings) as returns:
        yield returns
