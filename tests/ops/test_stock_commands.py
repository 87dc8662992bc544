"""`floodgate stock`, and `floodgate sale open` of a sale that lacks something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.support.processes import Processes
from tests.support.sales import make_sale
from tests.support.stock_shop import StockShop, open_stock_shop

Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Run a command against this test's shop; returns its status and output."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object) -> tuple[int, str]:
        texts = [str(argument) for argument in arguments]
        result = await asyncio.to_thread(CliRunner().invoke, app, texts, env=environment)
        return result.exit_code, " ".join(result.output.split())

    return run


@pytest.fixture
async def stock_shop(shop: CliServices) -> AsyncIterator[StockShop]:
    async with open_stock_shop(shop) as opened:
        await make_sale(shop, "products", {"a": (0, 100, None)}, opened=False)
        yield opened


async def test_stock_is_kept_by_commands(floodgate: Command, stock_shop: StockShop, tmp_path: Path) -> None:
    id_ = stock_shop.shop.ids.new()
    for _ in range(2):
        status, output = await floodgate("stock", "receive", "a", "hz", 10, "--movement-id", id_)
        assert (status, "received +10, 10 on hand" in output) == (0, True), output
    assert "damaged -1, 9 on hand" in (await floodgate("stock", "damage", "a", "hz", 1, "--reason", "water"))[1]
    assert "counted +2, 11 on hand" in (await floodgate("stock", "count", "a", "hz", 11))[1]
    status, output = await floodgate("stock", "move", "a", "hz", "sh", 4)
    assert (status, "moved -4, 7 on hand" in output, "moved +4, 4 on hand" in output) == (0, True, True), output
    assert "returned +1, 5 on hand" in (await floodgate("stock", "receive", "a", "sh", 1, "--returned"))[1]
    assert "warning below 6" in (await floodgate("stock", "warn", "a", "sh", 6))[1]
    assert '"warn_below":6' in (await floodgate("stock", "show", "--low", "--json"))[1].replace(" ", "")
    assert "water" in (await floodgate("stock", "movements", "a"))[1]
    status, output = await floodgate("stock", "damage", "a", "hz", 8, "--reason", "fire")
    assert (status, "has 7 units of a" in output) == (1, True), output
    counts = tmp_path / "counts.csv"
    counts.write_text("warehouse,sku,units\nhz,a,20\nhz,none,1\n")
    status, output = await floodgate("stock", "import", counts)
    assert (status, "does not keep none" in output) == (2, True), output
    assert await stock_shop.level("a", "hz") == (20, 0)


async def test_incomplete_sale_is_checked_and_opened_with_a_reason(
    floodgate: Command, stock_shop: StockShop, sale_id: str
) -> None:
    await make_sale(stock_shop.shop, sale_id, {"a": (5, 100, None)}, opened=False)
    status, output = await floodgate("sale", "check", sale_id)
    assert (status, "missing: a: weight and size are unknown" in output) == (1, True), output
    status, output = await floodgate("sale", "open", sale_id)
    assert (status, "cannot open" in output, "floodgate warehouse import FILE" in output) == (1, True, True), output
    status, output = await floodgate("sale", "open", sale_id, "--anyway", "they are digital")
    assert (status, f"{sale_id} is open" in output) == (0, True), output
    status, output = await floodgate("stock", "allotments", sale_id)
    assert (status, "nothing is allotted" in output) == (0, True), output
