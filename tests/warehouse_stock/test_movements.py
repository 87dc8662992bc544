"""Movements of stock: recorded once, never below zero, and the stock follows."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Literal

import asyncpg
import pytest

from commerce.catalog.model import VariantInput
from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import Invalid, KeyReused, UnreadableCsv
from commerce.warehouse_stock.errors import NoSuchStock, NotEnoughStock
from commerce.warehouse_stock.model import CountInput, MovementInput, StockTransferInput
from ops.services import CliServices
from tests.support.stock_shop import StockShop, open_stock_shop


@pytest.fixture
async def stock_shop(shop: CliServices) -> AsyncIterator[StockShop]:
    await shop.catalog.put_many([(sku, VariantInput(f"thing {sku}", 100, "CNY")) for sku in ("a", "b")])
    async with open_stock_shop(shop) as opened:
        yield opened


def damaged(units: int) -> MovementInput:
    return MovementInput("damaged", units, "it fell")


async def test_movements_change_the_stock_and_are_listed_newest_first(stock_shop: StockShop) -> None:
    stock = stock_shop.stock
    await stock_shop.receive("a", "hz", 10)
    await stock.record("a", "hz", damaged(3), "ann")
    counted = await stock.count("a", "hz", CountInput(9, "yearly count", "sheet 7"), "ann")
    assert (counted.kind, counted.on_hand_delta, counted.on_hand, counted.reference) == ("counted", 2, 9, "sheet 7")
    out, into = await stock.transfer("a", "hz", StockTransferInput("sh", 4, "nearer"), "ann")
    assert (out.warehouse_id, out.on_hand, into.warehouse_id, into.on_hand) == ("hz", 5, "sh", 4)
    assert out.movement_id == into.movement_id
    page = await stock.list_movements("a", "hz", None, 2)
    assert [movement.kind for movement in page.items] == ["moved", "counted"]
    assert page.next is not None
    rest = await stock.list_movements("a", "hz", int(page.next), 5)
    assert [movement.kind for movement in rest.items] == ["damaged", "received"]
    assert await stock_shop.level("a", "hz") == (5, 0)


async def test_movement_below_zero_is_refused_and_changes_nothing(stock_shop: StockShop) -> None:
    await stock_shop.receive("a", "hz", 2)
    with pytest.raises(NotEnoughStock, match="hz has 2 units of a"):
        await stock_shop.stock.record("a", "hz", damaged(3), "ann")
    with pytest.raises(NotEnoughStock):
        await stock_shop.stock.transfer("a", "hz", StockTransferInput("sh", 3, "nearer"), "ann")
    assert await stock_shop.level("a", "hz") == (2, 0)
    assert (await stock_shop.stock.list_levels(None, 10, "a", "sh")).items == []


@pytest.mark.parametrize(("sku", "warehouse_id"), [("none", "hz"), ("a", "nowhere"), ("b", "hz")])
async def test_movement_of_stock_that_does_not_exist_is_refused(
    stock_shop: StockShop, sku: str, warehouse_id: str
) -> None:
    with pytest.raises(NoSuchStock, match=sku):
        await stock_shop.stock.record(sku, warehouse_id, damaged(1), "ann")
    with pytest.raises(NoSuchStock):
        await stock_shop.stock.set_warning(sku, warehouse_id, 5)
    with pytest.raises(NoSuchStock):
        await stock_shop.stock.list_movements("none", None, None, 5)


async def test_transfer_to_the_same_warehouse_and_too_many_units_are_refused(stock_shop: StockShop) -> None:
    await stock_shop.receive("a", "hz", 1_000_000_000)
    with pytest.raises(Invalid, match="to_warehouse"):
        await stock_shop.stock.transfer("a", "hz", StockTransferInput("hz", 1, "round and round"), "ann")
    with pytest.raises(Invalid, match="at most"):
        await stock_shop.receive("a", "hz", 1)


@pytest.mark.parametrize("kind", ["received", "damaged", "counted", "moved"])
async def test_repeated_id_records_once_and_another_movement_is_refused(
    stock_shop: StockShop, kind: Literal["received", "damaged", "counted", "moved"]
) -> None:
    await stock_shop.receive("a", "hz", 10)
    stock, id_ = stock_shop.stock, stock_shop.shop.ids.new()

    async def record(units: int) -> object:
        if kind == "counted":
            return await stock.count("a", "hz", CountInput(units, "count"), "ann", id_)
        if kind == "moved":
            return await stock.transfer("a", "hz", StockTransferInput("sh", units, "nearer"), "ann", id_)
        return await stock.record("a", "hz", MovementInput(kind, units, "why not"), "ann", id_)

    first, second = await asyncio.gather(record(4), record(4))
    assert first == second
    with pytest.raises(KeyReused):
        await record(5)
    expected = {"received": 14, "damaged": 6, "counted": 4, "moved": 6}[kind]
    assert await stock_shop.level("a", "hz") == (expected, 0)


async def test_racing_movements_never_take_more_than_there_is(stock_shop: StockShop) -> None:
    await stock_shop.receive("a", "hz", 10)
    await stock_shop.receive("a", "sh", 10)
    stock = stock_shop.stock
    results = await asyncio.gather(
        *(stock.record("a", "hz", damaged(3), "ann") for _ in range(4)),
        *(stock.transfer("a", "hz", StockTransferInput("sh", 2, "there"), "ann") for _ in range(4)),
        *(stock.transfer("a", "sh", StockTransferInput("hz", 2, "and back"), "ann") for _ in range(4)),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(result, NotEnoughStock) for result in refused), refused
    lost = 3 * sum(not isinstance(result, BaseException) for result in results[:4])
    total = (await stock_shop.level("a", "hz"))[0] + (await stock_shop.level("a", "sh"))[0]
    assert total == 20 - lost


async def test_import_of_counts_reports_each_line_and_a_repeat_changes_nothing(stock_shop: StockShop) -> None:
    await stock_shop.receive("a", "hz", 5)
    text = (
        "warehouse,sku,units,warn_below\nhz,a,7,10\nsh,a,3,\nhz,none,1,\nnowhere,b,1,\nhz,b,-1,\nhz,a,8,\nHZ!,b,1,\n"
        "hz,b,1e3,\n"
    )

    async def run() -> tuple[int, int, int, dict[int, str]]:
        report = await stock_shop.stock.import_counts(io.StringIO(text, newline=""), "yearly count", "ann")
        errors = {error.line: error.reason for error in report.errors if isinstance(error, LineError)}
        return report.added, report.changed, report.unchanged, errors

    added, changed, unchanged, errors = await run()
    assert (added, changed, unchanged) == (1, 1, 0)
    assert sorted(errors) == [4, 5, 6, 7, 8, 9]
    assert "does not keep none" in errors[4]
    assert "line 2 already" in errors[7]
    movements = await stock_shop.fetch_rows("SELECT count(*) FROM stock_movements")
    assert (await run())[:3] == (0, 0, 2)
    assert await stock_shop.fetch_rows("SELECT count(*) FROM stock_movements") == movements
    [low] = (await stock_shop.stock.list_levels(None, 10, low=True)).items
    assert (low.sku, low.warehouse_id, low.on_hand, low.warn_below) == ("a", "hz", 7, 10)
    assert await stock_shop.stock.count_low() == 1
    await stock_shop.stock.set_warning("a", "hz", None)
    assert await stock_shop.stock.count_low() == 0


async def test_import_without_a_needed_column_is_refused(stock_shop: StockShop) -> None:
    with pytest.raises(UnreadableCsv, match="warehouse, sku, units"):
        await stock_shop.stock.import_counts(["sku,units\n", "a,1\n"], "count", "ann")


async def test_levels_are_listed_page_by_page(stock_shop: StockShop) -> None:
    for sku, warehouse_id in (("a", "hz"), ("a", "sh"), ("b", "hz")):
        await stock_shop.receive(sku, warehouse_id, 1)
    page = await stock_shop.stock.list_levels(None, 2)
    assert [(level.sku, level.warehouse_id) for level in page.items] == [("a", "hz"), ("a", "sh")]
    page = await stock_shop.stock.list_levels(page.next, 2)
    assert [(level.sku, level.warehouse_id, level.free) for level in page.items] == [("b", "hz", 1)]
    assert page.next is None


async def test_movements_are_never_changed(stock_shop: StockShop) -> None:
    await stock_shop.receive("a", "hz", 1)
    for statement in ("UPDATE stock_movements SET reason = 'another'", "DELETE FROM stock_movements"):
        with pytest.raises(asyncpg.RaiseError, match="stock_movements"):
            await stock_shop.fetch_rows(statement)
    with pytest.raises(asyncpg.CheckViolationError):
        await stock_shop.fetch_rows("UPDATE stock_levels SET on_hand = -1")
