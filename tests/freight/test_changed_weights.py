"""A new weight or list price raises the generation of its sales, as a new price does."""

from __future__ import annotations

import asyncio

import pytest

from commerce.catalog.model import VariantInput
from commerce.warehouses.service import Warehouses
from ops.services import CliServices
from tests.support.sales import CURRENCY, make_sale

PLACES = [
    "id,name,phone,country,province,city,district,line,postcode,latitude,longitude",
    "hz,Hangzhou 1,0571-8888,CN,Zhejiang,Hangzhou,Yuhang,Wenyi West Road 969,311100,30.279,120.026",
]


@pytest.fixture
async def warehouses(shop: CliServices) -> Warehouses:
    warehouses = Warehouses(shop.db)
    assert (await warehouses.import_csv(PLACES)).errors == []
    return warehouses


async def import_weights(warehouses: Warehouses, **weights: int) -> None:
    header = "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm"
    rows = [f"{sku},hz,A-01,{weight_g},200,100,50" for sku, weight_g in weights.items()]
    assert (await warehouses.import_csv([header, *rows])).errors == []


async def test_new_weight_of_an_open_sale_is_published_and_read_again(
    shop: CliServices, warehouses: Warehouses, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None), "b": (5, 100, None)})
    sale = await shop.sales.get(sale_id)
    before = await shop.sales.read_snapshot(sale, None)
    assert [before.items[sku].weight_g for sku in "ab"] == [0, 0]
    for weights, raised in (({"a": 300}, 1), ({"a": 300}, 1), ({"a": 400, "b": 500}, 2)):
        await import_weights(warehouses, **weights)
        changed = await shop.sales.get(sale_id)
        assert changed.generation == sale.generation + raised
    assert changed.published_generation < changed.generation, "sale_sync is to publish it"
    after = await shop.sales.read_snapshot(changed, before)
    assert [after.items[sku].weight_g for sku in "ab"] == [400, 500]


async def test_new_list_price_reaches_only_sales_that_are_not_closed(shop: CliServices, sale_id: str) -> None:
    for name in ("open", "closed"):
        await make_sale(shop, f"{sale_id}-{name}", {"a": (5, 100, None)})
    await shop.sales.close(f"{sale_id}-closed", "test")
    sales = {name: await shop.sales.get(f"{sale_id}-{name}") for name in ("open", "closed")}
    before = await shop.sales.read_snapshot(sales["open"], None)
    await shop.catalog.put("a", VariantInput("another name", 100, CURRENCY))
    assert await shop.sales.get(f"{sale_id}-open") == sales["open"], "a name is no term"
    await shop.catalog.put("a", VariantInput("another name", 120, CURRENCY))
    changed = await shop.sales.get(f"{sale_id}-open")
    assert changed.generation == sales["open"].generation + 1
    assert await shop.sales.get(f"{sale_id}-closed") == sales["closed"]
    item = (await shop.sales.read_snapshot(changed, before)).items["a"]
    assert (item.list_price, item.price) == (120, 100), "the sale has a price of its own"


async def test_imports_beside_changes_of_the_sale_end_and_lose_nothing(
    shop: CliServices, warehouses: Warehouses, sale_id: str
) -> None:
    skus = [f"s{number}" for number in range(20)]
    await make_sale(shop, sale_id, dict.fromkeys(skus, (5, 100, None)))
    sale = await shop.sales.get(sale_id)
    before = await shop.sales.read_snapshot(sale, None)

    async def change_prices() -> None:
        for price in range(1, 11):
            await shop.sales.change_item(sale_id, skus[price], price, None, "test")

    imports = (import_weights(warehouses, **dict.fromkeys(skus, weight_g)) for weight_g in (100, 200, 300))
    await asyncio.gather(change_prices(), *imports)
    snapshot = await shop.sales.read_snapshot(await shop.sales.get(sale_id), before)
    [weight_g] = {item.weight_g for item in snapshot.items.values()}
    assert weight_g in (100, 200, 300)
    assert [snapshot.items[sku].price for sku in skus[1:11]] == list(range(1, 11))
