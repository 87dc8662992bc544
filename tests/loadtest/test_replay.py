"""The retail data set: which invoices are orders, and that all orders arrive to the penny."""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from commerce.kernel.errors import Invalid, NotReady, ProblemError
from config.settings import Settings
from loadtest import replay as replay_module
from loadtest.replay import count_skip_reasons, replay
from loadtest.replay_cases import PlayedReturns
from loadtest.retail_dataset import read_dataset
from loadtest.set_up import SET_UP_STATUS
from ops.services import CliServices
from tests.support.gateway import open_gateway, run_workers
from tests.support.locust_runs import key_environment, run_command
from tests.support.processes import free_port

REAL = os.environ.get("FLOODGATE_TEST_DATASET", "")
"""file with the first three days of December 2010 of Online Retail (UCI), if named"""
WORKERS = ("order_writer", "payment_worker", "release_worker")
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
ROWS = '''\
1,85123A,"HEART, ""white""",6,2010-12-01,2.55,17850,United Kingdom
1,71053,LANTERN,6,2010-12-01,3.39,17850,United Kingdom
1,85123A,HEART,2,2010-12-01,2.55,17850,United Kingdom
2,85123A,HEART,1,2010-12-01,2.95,,France
2,POST,POSTAGE,1,2010-12-01,18,,France
3,85123A,HEART,1,2010-12-02,2.55,1,EIRE
C4,85123A,HEART,-1,2010-12-02,2.55,17850,United Kingdom
5,22139,,56,2010-12-01,0,,United Kingdom
6,21777,,-10,2010-12-01,0,,United Kingdom
7,BANK CHARGES,Bank Charges,1,2010-12-02,15,15823,United Kingdom
8,71053,LANTERN,1,2010-12-02,3.39,2,United Kingdom
8,22139,GIFT,1,2010-12-02,0,2,United Kingdom
8,71053,LANTERN,many,2010-12-02,3.39,2,United Kingdom
'''


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "baskets.csv.gz"
    file.write_bytes(gzip.compress(text.encode()))
    return file


def test_dataset_with_returns_and_fees_keeps_orders_only(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, HEADER + ROWS))
    assert [(basket.invoice, basket.user_id, basket.total) for basket in dataset.baskets] == [
        ("1", "customer-17850", 8 * 255 + 6 * 339),
        ("2", "guest-2", 295 + 1800),
        ("3", "customer-1", 255),
        ("8", "customer-2", 339),
    ]
    assert [(skipped.invoice, skipped.reason) for skipped in dataset.skipped] == [
        ("5", "a stock correction at no price, no order"),
        ("6", "a write-off of stock, no order"),
        ("7", "fees only, no products"),
        ("8", "line 22139: the price is 0"),
        ("8", "line 71053: the quantity is 'many'"),
    ]
    assert [(line.invoice, line.user_id, line.sku, line.total) for line in dataset.returns] == [
        ("C4", "customer-17850", "85123A", 255)
    ]
    assert dataset.products["85123A"] == ('HEART, "white"', 255)
    assert dataset.products["85123A.at295"] == ("HEART", 295)
    assert dataset.units == {"85123A": 9, "71053": 7, "85123A.at295": 1, "POST": 1}


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", HEADER + "1,2,3\n"])
def test_dataset_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid):
        read_dataset(write(tmp_path, text))


async def test_replay_repeated_creates_no_orders(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + ROWS)
    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        first = await replay(shop, gateway.base, file, 4)
        repeat = await replay(shop, gateway.base, file, 4)
    for result in (first, repeat):
        assert result.is_complete, (result.differences, result.played)
        assert (result.stored_orders, result.stored_total) == (4, result.sent_total)
    assert (first.created, first.repeated, repeat.created, repeat.repeated) == (4, 0, 0, 4)
    assert (await shop.audit.audit_sale(first.sale_id)).clean
    await delete_sale_keys(shop, first.sale_id)


async def test_replay_of_changed_order_lines_reports_differences(
    shop: CliServices, settings: Settings, tmp_path: Path
) -> None:
    file = write(tmp_path, HEADER + ROWS)
    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        await replay(shop, gateway.base, file, 4)
        async with shop.db.connection() as connection:
            await connection.execute("UPDATE order_lines SET unit_price_minor = 338 WHERE unit_price_minor = 339")
        result = await replay(shop, gateway.base, file, 4)
    assert not result.is_complete
    assert sorted(result.differences) == [
        "1: the stored lines are not those that were sent",
        "8: the stored lines are not those that were sent",
    ]
    await delete_sale_keys(shop, result.sale_id)


async def test_replay_with_wrong_set_up_creates_no_sale_and_is_no_difference(
    shop: CliServices, make_settings: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> None:
    file = write(tmp_path, HEADER + ROWS)
    (tmp_path / "returns").mkdir()
    returns = write(tmp_path / "returns", HEADER + "C4,85123A,HEART,-1,2010-12-02,2.55,17850,United Kingdom\n")
    other_keys = {"keys": [{"kid": "test", "secret": "another secret of thirty-two bytes"}]}
    nobody = f"http://127.0.0.1:{free_port()}"
    async with open_gateway(make_settings(auth=other_keys)) as gateway, open_gateway(settings) as right:
        for base, replayed, text in (
            (nobody, file, f"no answer from {nobody}"),
            (nobody.removeprefix("http://"), file, "no answer from"),
            (gateway.base, file, "refuses our token"),
            (right.base, returns, "none of its 1 invoices is an order"),
        ):
            with pytest.raises(ProblemError, match=re.escape(text)):
                await replay(shop, base, replayed, 4)
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM sales") == 0
    command = [str(Path(sys.executable).parent / "floodgate"), "replay", str(file), "--base", nobody]
    variables = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database(), **key_environment(tmp_path)}
    status, output = await run_command(command, variables)
    assert status == SET_UP_STATUS, output
    assert output.count("error:") == 1
    assert "Traceback" not in output


async def test_replay_to_gateway_of_another_shop_sends_no_basket(
    shop: CliServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=200 if request.path == "/v1/orders" else 404, headers={"X-Request-Id": "r"})

    monkeypatch.setattr(replay_module, "_OFFERED_TIMEOUT_S", 0.1)
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        with pytest.raises(NotReady, match="does not offer the sale replay-"):
            await replay(shop, f"http://127.0.0.1:{server.port}", write(tmp_path, HEADER + ROWS), 4)
    assert paths.pop(0) == "/v1/orders"
    await delete_sale_keys(shop, paths[0].removeprefix("/v1/sales/"))


@pytest.mark.skipif(not REAL, reason="FLOODGATE_TEST_DATASET does not name the data set")
async def test_replay_of_real_dataset_matches_its_total(shop: CliServices, settings: Settings) -> None:
    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        result = await replay(shop, gateway.base, Path(REAL), 16)
        repeat = await replay(shop, gateway.base, Path(REAL), 16)
    assert result.is_complete, (result.differences, result.played)
    assert repeat.is_complete, (repeat.differences, repeat.played)
    assert result.played == PlayedReturns(created=7, refunded_total=13_610)
    assert repeat.played == PlayedReturns(repeated=7, refunded_total=13_610)
    assert (len(result.source.baskets), result.created, repeat.created) == (336, 336, 0)
    assert result.stored_total == 15_363_788
    assert sum(count for _, count in count_skip_reasons(result.source)) == 46
    assert len({line.invoice for line in result.source.returns}) == 36
    audit = await shop.audit.audit_sale(result.sale_id)
    assert audit.clean, audit.findings
    await delete_sale_keys(shop, result.sale_id)


async def delete_sale_keys(shop: CliServices, sale_id: str) -> None:
    """Delete the sale from Redis: the check for leaked keys does not know its name."""
    async for key in shop.redis.scan_iter(f"{{sale:{sale_id}}}*"):
        await shop.redis.delete(key)
