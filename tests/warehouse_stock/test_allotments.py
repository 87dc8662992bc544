"""Units that sales may sell are allotted from warehouses, and flow back what was not sold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from commerce.kernel.clock import from_ms
from commerce.sale_changes.model import ChangedSale
from commerce.sales.errors import NotEnoughFreeUnits
from commerce.sales.model import ItemInput, StockChangeInput
from commerce.sales.unsold_units import UnsoldUnits
from commerce.warehouse_stock.errors import NotEnoughStock
from commerce.warehouse_stock.model import CountInput, ItemAllotment, MovementInput, StockTransferInput
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import eventually, expire_all, make_sale
from tests.support.sold_orders import SoldOrders
from tests.support.stock_shop import StockShop, open_stock_shop


@pytest.fixture
async def stock_shop(shop: CliServices, sale_id: str) -> AsyncIterator[StockShop]:
    """A draft of `a` with 10 units, of which hz has 8 and sh 5, and of `b`, which no warehouse keeps."""
    async with open_stock_shop(shop) as opened:
        await make_sale(shop, "products", {"a": (0, 100, None), "b": (0, 100, None)}, opened=False)
        await opened.receive("a", "hz", 8)
        await opened.receive("a", "sh", 5)
        await make_sale(shop, sale_id, {"a": (10, 100, None), "b": (7, 100, None)}, opened=False)
        yield opened


async def allotment(stock_shop: StockShop, sale_id: str) -> ItemAllotment:
    [item] = (await stock_shop.stock.list_allotments(sale_id, None, 10)).items
    assert item.sku == "a"
    return item


async def change(stock_shop: StockShop, sale_id: str, delta: int) -> None:
    shop = stock_shop.shop
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", delta, "as needed"), "ann")


def unsold(shop: CliServices) -> UnsoldUnits:
    return UnsoldUnits(shop.db, shop.sales, shop.stock, shop.clock)


async def test_items_of_a_draft_are_allotted_from_few_warehouses(stock_shop: StockShop, sale_id: str) -> None:
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 10, 10, 10, 0)
    assert (await stock_shop.level("a", "hz"), await stock_shop.level("a", "sh")) == ((8, 8), (5, 2))
    await stock_shop.shop.sales.put_items(sale_id, [("a", ItemInput(units=4))], "ann")
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 4, 4, 4, 0)
    await stock_shop.shop.sales.change_item(sale_id, "a", 100, None, "ann", units=20)
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 20, 13, 13, 0)
    await stock_shop.receive("a", "sh", 3)
    await stock_shop.shop.sales.open(sale_id, "ann")
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 20, 16, 16, 0)
    kinds = {row["kind"] for row in await stock_shop.fetch_rows("SELECT kind FROM stock_movements")}
    assert kinds == {"received", "allotted", "taken_back"}


async def test_removed_item_and_deleted_draft_leave_nothing_allotted(stock_shop: StockShop, sale_id: str) -> None:
    await stock_shop.shop.sale_changes.remove_item(sale_id, "a", "ann")
    assert (await stock_shop.stock.list_allotments(sale_id, None, 10)).items == []
    assert (await stock_shop.level("a", "hz"))[1] == 0
    await stock_shop.shop.sales.put_items(sale_id, [("a", ItemInput(units=4))], "ann")
    await stock_shop.shop.sale_changes.delete(sale_id, "ann")
    assert (await stock_shop.level("a", "hz"), await stock_shop.level("a", "sh")) == ((8, 0), (5, 0))


async def test_changes_of_stock_allot_more_and_take_back(stock_shop: StockShop, sale_id: str) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    change_id = shop.ids.new()
    for _ in range(2):
        await shop.stock.change(sale_id, change_id, StockChangeInput("a", 2, "more"), "ann")
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 12, 12, 12, 0)
    with pytest.raises(NotEnoughStock, match="warehouses have 1 that no sale has"):
        await change(stock_shop, sale_id, 2)
    with pytest.raises(NotEnoughFreeUnits):
        await change(stock_shop, sale_id, -13)
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 12, 12, 12, 0)
    await change(stock_shop, sale_id, -5)
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 7, 7, 7, 0)
    [row] = await stock_shop.fetch_rows("SELECT count(*) FROM stock_changes")
    assert row["count"] == 3


async def test_item_without_kept_stock_is_sold_as_before(stock_shop: StockShop, sale_id: str) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 100, "more"), "ann")
    await stock_shop.receive("b", "hz", 1)
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 100, "more"), "ann")
    assert await stock_shop.level("b", "hz") == (1, 0)
    assert (await shop.sales.read_free_units([(sale_id, "b")]))[sale_id, "b"] == 207


async def test_allotted_units_cannot_be_moved_damaged_or_counted_away(stock_shop: StockShop) -> None:
    stock = stock_shop.stock
    with pytest.raises(NotEnoughStock, match="8 of them are allotted"):
        await stock.record("a", "hz", MovementInput("damaged", 1, "it fell"), "ann")
    with pytest.raises(NotEnoughStock):
        await stock.count("a", "hz", CountInput(7, "count"), "ann")
    with pytest.raises(NotEnoughStock):
        await stock.transfer("a", "sh", StockTransferInput("hz", 4, "there"), "ann")
    assert (await stock.transfer("a", "sh", StockTransferInput("hz", 3, "there"), "ann"))[0].on_hand == 2


async def test_transfers_race_with_allotments_and_never_take_allotted_units(
    stock_shop: StockShop, sale_id: str
) -> None:
    await stock_shop.shop.sales.open(sale_id, "ann")
    results = await asyncio.gather(
        *(change(stock_shop, sale_id, 1) for _ in range(6)),
        *(stock_shop.stock.transfer("a", "sh", StockTransferInput("hz", 1, "there"), "ann") for _ in range(6)),
        *(change(stock_shop, sale_id, -1) for _ in range(6)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(result, NotEnoughStock) for result in refused), refused
    added = sum(not isinstance(result, BaseException) for result in results[:6])
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 4 + added, 4 + added, 4 + added, 0)
    free = await stock_shop.shop.sales.read_free_units([(sale_id, "a")])
    assert free[sale_id, "a"] == 4 + added


async def test_unsold_units_flow_back_when_the_sale_is_closed(stock_shop: StockShop, sale_id: str) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    assert await unsold(shop).take_back() == 0
    await shop.sales.close(sale_id, "ann")
    assert sorted(await asyncio.gather(*(unsold(shop).take_back() for _ in range(3)))) == [0, 0, 10]
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 0, 0, 0, 0)
    assert (await stock_shop.level("a", "hz"), await stock_shop.level("a", "sh")) == ((8, 0), (5, 0))
    assert (await shop.audit.audit_sale(sale_id)).findings == []


async def test_unsold_units_flow_back_when_the_time_of_the_sale_is_over(stock_shop: StockShop, sale_id: str) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    now = from_ms(shop.clock.now_ms())
    await shop.sale_changes.change(sale_id, ChangedSale(closes_at=now + timedelta(minutes=5)), "ann")
    assert await unsold(shop).take_back() == 0
    await stock_shop.fetch_rows(
        "UPDATE sales SET opens_at = $1, closes_at = $2", now - timedelta(days=1), now - timedelta(minutes=2)
    )
    assert await unsold(shop).take_back() == 10


async def test_units_of_an_order_that_expires_after_the_end_flow_back_then(
    stock_shop: StockShop, settings: Settings, sale_id: str
) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    sold = SoldOrders(shop, settings, SaleKeys(sale_id), sale_id)
    await sold.place({"a": 3}, paid=False)
    await sold.place({"a": 2})
    await shop.sales.close(sale_id, "ann")
    assert await unsold(shop).take_back() == 5
    assert await unsold(shop).take_back() == 0
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 5, 5, 5, 0)
    await expire_all(shop)
    assert await sold.reservations.expire_unpaid_orders() == 1
    await sold.apply()
    assert await unsold(shop).take_back() == 3
    assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 2, 2, 2, 0)


@pytest.mark.parametrize("failpoint", ["stock.after_record", "stock.after_redis"])
async def test_worker_killed_between_record_and_apply_takes_units_back_once(
    stock_shop: StockShop, settings: Settings, sale_id: str, failpoint: str, tmp_path: Path
) -> None:
    shop = stock_shop.shop
    await shop.sales.open(sale_id, "ann")
    await shop.sales.close(sale_id, "ann")
    async with run_processes(settings, tmp_path) as processes:
        killed = await processes.worker("sale_sync", crash_at=failpoint)
        assert await wait_for_exit(killed) == -9
        assert await allotment(stock_shop, sale_id) == ItemAllotment("a", 10, 10, 10, 0)
        await processes.worker("sale_sync")

        async def is_back() -> bool:
            return await allotment(stock_shop, sale_id) == ItemAllotment("a", 0, 0, 0, 0)

        await eventually(is_back, 60)
    assert (await stock_shop.level("a", "hz"), await stock_shop.level("a", "sh")) == ((8, 0), (5, 0))
    assert (await shop.audit.audit_sale(sale_id)).findings == []
