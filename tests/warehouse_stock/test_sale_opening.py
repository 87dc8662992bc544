"""A sale says what its orders will lack before it opens."""

from __future__ import annotations

import pytest

from commerce.rates.service import Rates
from commerce.sale_changes.errors import SaleIncomplete
from commerce.sale_changes.opening import SaleOpening
from commerce.sales.errors import NoSuchSale
from ops.services import CliServices
from tests.support.logistics import put_logistics
from tests.support.sales import make_sale
from tests.support.shipping_shop import RATES, add_products
from tests.support.stock_shop import open_stock_shop


def opening_of(shop: CliServices) -> SaleOpening:
    return SaleOpening(shop.db, shop.sales, shop.clock)


async def gaps_of(shop: CliServices, sale_id: str) -> dict[str, tuple[bool, int, list[str]]]:
    gaps = await opening_of(shop).list_gaps(sale_id)
    assert all("floodgate " in gap.detail for gap in gaps)
    return {gap.kind: (gap.is_warning, gap.count, gap.skus) for gap in gaps}


async def test_shop_without_warehouses_is_warned_and_opens(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    assert await gaps_of(shop, sale_id) == {"warehouse": (True, 0, [])}
    sale, gaps = await opening_of(shop).open(sale_id, "ann")
    assert (sale.state, [gap.kind for gap in gaps]) == ("open", ["warehouse"])
    assert (await opening_of(shop).open(sale_id, "ann"))[1] == [], "it is open"


async def test_everything_missing_is_listed_with_a_remedy(shop: CliServices, sale_id: str) -> None:
    await add_products(shop)
    items = {"a": (5, 100, None), "b": (5, 100, None), **{f"new-{n:02}": (1, 100, None) for n in range(12)}}
    await make_sale(shop, sale_id, items, opened=False)
    names = [f"new-{n:02}" for n in range(10)]
    assert await gaps_of(shop, sale_id) == {
        "measures": (False, 12, names),
        "logistics": (False, 12, names),
        "rate_table": (False, 0, []),
        "freight_template": (True, 0, []),
    }
    await Rates(shop.db, shop.clock).import_table(RATES.splitlines(keepends=True), "test", "test")
    async with shop.db.connection() as connection:
        await put_logistics(connection, "a", "hz", "A-01", 30_001, 100)
        await connection.execute("UPDATE sale_items SET price_minor = 0 WHERE sku = 'b'")
    assert {kind: gap[2] for kind, gap in (await gaps_of(shop, sale_id)).items()} == {
        "measures": names,
        "logistics": names,
        "rate": ["a"],
        "price": ["b"],
        "freight_template": [],
    }
    with pytest.raises(SaleIncomplete, match="new-09 and others: weight and size are unknown") as refused:
        await opening_of(shop).open(sale_id, "ann")
    first = refused.value.extra["gaps"][0]
    assert (first.kind, first.count, first.skus) == ("measures", 12, names)
    assert (await shop.sales.get(sale_id)).state == "draft"
    await opening_of(shop).open(sale_id, "ann", "they are digital")
    assert (await shop.sales.get(sale_id)).state == "open"
    async with shop.db.connection() as connection:
        [row] = await connection.fetch("SELECT actor, detail FROM sale_log WHERE action = 'open_anyway'")
    assert row["actor"] == "ann"
    assert '"they are digital"' in row["detail"]


async def test_fewer_units_in_warehouses_than_offered_are_missing(shop: CliServices, sale_id: str) -> None:
    await add_products(shop)
    await Rates(shop.db, shop.clock).import_table(RATES.splitlines(keepends=True), "test", "test")
    async with open_stock_shop(shop, adds_warehouses=False) as stock:
        await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
        await stock.receive("a", "sh", 4)
        assert (await gaps_of(shop, sale_id))["stock"] == (False, 1, ["a"])
        await stock.receive("a", "hz", 1)
        assert set(await gaps_of(shop, sale_id)) == {"freight_template"}
        await opening_of(shop).open(sale_id, "ann")
        [item] = (await stock.stock.list_allotments(sale_id, None, 5)).items
        assert (item.needed, item.allotted) == (5, 5)


async def test_kept_stock_is_a_warehouse_without_logistics(shop: CliServices, sale_id: str) -> None:
    await add_products(shop)
    async with open_stock_shop(shop, adds_warehouses=False) as stock:
        await make_sale(shop, sale_id, {"new": (5, 100, None)}, opened=False)
        await stock.receive("new", "sh", 5)
        assert "logistics" not in await gaps_of(shop, sale_id)


async def test_sale_that_does_not_exist_is_refused(shop: CliServices) -> None:
    with pytest.raises(NoSuchSale):
        await opening_of(shop).open("none", "ann")
