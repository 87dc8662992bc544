"""Fixture of the returns of a shop whose cases follow their shipments."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from commerce.aftersales.return_steps import CaseFollower
from config.settings import Settings
from tests.support.return_shop import ReturnShop, open_return_shop
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
async def returns(ship: ShippingShop, settings: Settings) -> AsyncIterator[ReturnShop]:
    async with open_return_shop(ship, settings, on_step=CaseFollower(ship.shop.ids, settings.aftersales)) as returns:
        yield returns
