"""Good units that customers return are stock of the warehouse that received them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import pytest

from commerce.aftersales.case_status import lock_case
from commerce.aftersales.inspected_units import book_inspected_units
from commerce.aftersales.model import PolicyTerms
from commerce.aftersales.receipt_model import ReceiptInput
from commerce.aftersales.return_steps import CaseFollower
from commerce.kernel.clock import from_ms
from config.settings import Settings
from tests.support.return_shop import ReturnShop, open_return_shop
from tests.support.sales import make_sale
from tests.support.shipping_shop import ShippingShop
from tests.support.stock_shop import StockShop, open_stock_shop


@pytest.fixture
async def stock(ship: ShippingShop) -> AsyncIterator[StockShop]:
    async with open_stock_shop(ship.shop, adds_warehouses=False) as opened:
        await opened.receive("a", "hz", 10)
        await make_sale(ship.shop, "sale", {"a": (10, 100, None)}, opened=False)
        yield opened


@pytest.fixture
async def returns(ship: ShippingShop, stock: StockShop, settings: Settings) -> AsyncIterator[ReturnShop]:
    async with open_return_shop(ship, settings, on_step=CaseFollower(ship.shop.ids, settings.aftersales)) as returns:
        yield returns


async def book(returns: ReturnShop, case_id: UUID, policies: Mapping[str, PolicyTerms] | None = None) -> None:
    shop = returns.ship.shop
    async with shop.db.transaction() as connection:
        locked = await lock_case(connection, case_id)
        await book_inspected_units(connection, shop.ids, locked, policies or {}, from_ms(shop.clock.now_ms()))


async def receive(returns: ReturnShop, case_id: UUID, warehouse_id: str, units: int) -> None:
    version = (await returns.get_case(case_id)).version
    receipt = ReceiptInput(warehouse=warehouse_id, case_id=case_id, version=version, lines={0: units})
    await returns.receipts.receive(receipt, "staff ann")


async def test_good_units_go_to_the_warehouses_that_received_them_once(returns: ReturnShop, stock: StockShop) -> None:
    order_id = await returns.deliver_order(("a", 6, 0))
    assert await stock.level("a", "hz") == (4, 4)
    case_id = await returns.add_case(order_id)
    await receive(returns, case_id, "hz", 2)
    await receive(returns, case_id, "sh", 4)
    await returns.inspect(case_id, (4, 1, 1))
    await asyncio.gather(*(book(returns, case_id) for _ in range(3)))
    assert (await stock.level("a", "hz"), await stock.level("a", "sh")) == ((6, 6), (2, 2))
    query = "SELECT warehouse_id, on_hand_delta, sale_id, reference FROM stock_movements WHERE kind = 'returned'"
    rows = await stock.fetch_rows(query)
    assert sorted(tuple(row) for row in rows) == [
        ("hz", 2, "sale", f"case {case_id}"),
        ("sh", 2, "sale", f"case {case_id}"),
    ]


async def test_good_units_that_are_not_resold_are_of_no_sale(returns: ReturnShop, stock: StockShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    await receive(returns, case_id, "hz", 2)
    await returns.inspect(case_id, (1, 1, 0))
    await book(returns, case_id, {"a": PolicyTerms(is_resold=False)})
    assert await stock.level("a", "hz") == (9, 8)
