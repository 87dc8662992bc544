"""P7: the audit finds every way in which stock, movements, allotments and shipments can disagree."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale
from tests.support.sold_orders import SoldOrders
from tests.support.stock_shop import StockShop, open_stock_shop

_STOCK = "the stock of warehouses differs from its movements"
_ALLOTMENTS = "units that are allotted to the sale differ from its movements, changes or shipments"


@pytest.fixture
async def stock_shop(shop: CliServices, sale_id: str) -> AsyncIterator[StockShop]:
    """An open sale with 5 of 8 units of `a`, whose stock a test may break."""
    async with open_stock_shop(shop, checks=False) as opened:
        await make_sale(shop, "products", {"a": (0, 100, None)}, opened=False)
        await opened.receive("a", "hz", 8)
        await make_sale(shop, sale_id, {"a": (5, 100, None)})
        await shop.audit.seal_history(sale_id)
        yield opened


@pytest.mark.parametrize(
    ("statement", "details", "is_quick"),
    [
        ("UPDATE stock_levels SET on_hand = on_hand + 1", {_STOCK}, True),
        ("UPDATE stock_levels SET allotted = allotted - 1", {_STOCK}, True),
        ("UPDATE stock_movements SET on_hand_delta = 9 WHERE kind = 'received'", {_STOCK}, False),
        ("DELETE FROM stock_movements WHERE kind = 'received'", {_STOCK}, False),
        ("UPDATE allotments SET units = units + 1", {_STOCK, _ALLOTMENTS}, False),
        ("UPDATE allotments SET planned = 1", {_ALLOTMENTS}, False),
        ("UPDATE allotted_items SET allotted = allotted - 1", {_ALLOTMENTS}, False),
        ("UPDATE allotted_items SET needed = needed - 1, allotted = allotted - 1", {_ALLOTMENTS}, False),
        (
            "INSERT INTO stock_movements (sku, warehouse_id, kind, on_hand_delta, allotted_delta, on_hand, allotted, "
            "sale_id, reason, actor, moved_at) "
            "SELECT sku, warehouse_id, 'shipped', -1, -1, on_hand, allotted, sale_id, 'none', 'none', moved_at "
            "FROM stock_movements WHERE kind = 'allotted'",
            {_STOCK, _ALLOTMENTS},
            False,
        ),
    ],
)
async def test_broken_stock_is_found(
    stock_shop: StockShop,
    settings: Settings,
    sale_id: str,
    statement: str,
    details: set[str],
    is_quick: bool,
) -> None:
    audit = stock_shop.shop.audit
    assert (await audit.audit_sale(sale_id)).findings == []
    assert (await audit.audit_changes(sale_id)).findings == []
    sold = SoldOrders(stock_shop.shop, settings, SaleKeys(sale_id), sale_id)
    await sold.execute(statement)
    findings = (await audit.audit_sale(sale_id)).findings
    assert {(finding.promise, finding.detail) for finding in findings} == {("P7", detail) for detail in details}
    quick = (await audit.audit_changes(sale_id)).findings
    assert [finding.detail for finding in quick] == ([_ALLOTMENTS] if is_quick else [])
