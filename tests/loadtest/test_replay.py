"""Real baskets: what is an order and what is not, and that all of it arrives to the penny."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from commerce.kernel.errors import Invalid
from config.settings import Settings
from loadtest.replay import reasons, replay
from loadtest.retail_dataset import read_baskets
from ops.services import CliServices
from tests.support.gateway import open_gateway, run_workers

REAL = os.environ.get("FLOODGATE_TEST_DATASET", "")
"""the first three days of December 2010 of the data set Online Retail (UCI Machine Learning Repository), if named"""
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


def test_what_is_an_order(tmp_path: Path) -> None:
    source = read_baskets(write(tmp_path, HEADER + ROWS))
    assert [(basket.invoice, basket.user_id, basket.total) for basket in source.baskets] == [
        ("1", "customer-17850", 8 * 255 + 6 * 339),
        ("2", "guest-2", 295 + 1800),
        ("3", "customer-1", 255),
        ("8", "customer-2", 339),
    ]
    assert [(item.invoice, item.reason) for item in source.left_out] == [
        ("C4", "goods that came back, no order"),
        ("5", "a correction of stock at no price, no order"),
        ("6", "goods written off, no order"),
        ("7", "nothing but fees, no goods"),
        ("8", "line 22139: the price is 0"),
        ("8", "line 71053: the quantity is 'many'"),
    ]
    assert source.products["85123A"] == ('HEART, "white"', 255)
    assert source.products["85123A.at295"] == ("HEART", 295)
    assert source.units == {"85123A": 9, "71053": 7, "85123A.at295": 1, "POST": 1}


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", HEADER + "1,2,3\n"])
def test_what_is_no_such_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(Invalid):
        read_baskets(write(tmp_path, text))


async def test_a_replay_and_its_repeat(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + ROWS)
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        first = await replay(shop, gateway.base, file, 4)
        again = await replay(shop, gateway.base, file, 4)
    for done in (first, again):
        assert done.good, done.wrong
        assert (done.stored_orders, done.stored_total) == (4, done.sent_total)
    assert (first.created, first.repeated, again.created, again.repeated) == (4, 0, 0, 4)
    assert (await shop.audit.audit_sale(first.sale_id)).clean
    await forget(shop, first.sale_id)


async def test_a_difference_is_found(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + ROWS)
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        await replay(shop, gateway.base, file, 4)
        async with shop.db.connection() as connection:
            await connection.execute("UPDATE order_lines SET unit_price_minor = 338 WHERE unit_price_minor = 339")
        done = await replay(shop, gateway.base, file, 4)
    assert not done.good
    assert sorted(done.wrong) == [
        "1: other lines are stored than were sent",
        "8: other lines are stored than were sent",
    ]
    await forget(shop, done.sale_id)


@pytest.mark.skipif(not REAL, reason="FLOODGATE_TEST_DATASET does not name the data set")
async def test_three_days_of_a_gift_shop(shop: CliServices, settings: Settings) -> None:
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        done = await replay(shop, gateway.base, Path(REAL), 16)
        again = await replay(shop, gateway.base, Path(REAL), 16)
    assert done.good, done.wrong
    assert again.good, again.wrong
    assert (len(done.source.baskets), done.created, again.created) == (336, 336, 0)
    assert done.stored_total == 15_363_788
    assert sum(count for _, count in reasons(done.source)) == 82
    audit = await shop.audit.audit_sale(done.sale_id)
    assert audit.clean, audit.findings
    await forget(shop, done.sale_id)


async def forget(shop: CliServices, sale_id: str) -> None:
    """A replay's sale has a name of its own, which the check for stray keys does not know."""
    async for key in shop.redis.scan_iter(f"{{sale:{sale_id}}}*"):
        await shop.redis.delete(key)
