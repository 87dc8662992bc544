"""Returns of the retail data set: which purchases cover them, and a report that agrees with the file."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from commerce.aftersales.model import Case
from commerce.kernel.errors import Conflict
from config.settings import Settings
from loadtest import replay_cases, replay_deliveries
from loadtest.replay import replay
from loadtest.replay_cases import PlayedReturns
from loadtest.replay_returns import (
    MORE_THAN_IS_LEFT,
    NO_CUSTOMER,
    NO_EARLIER_PURCHASE,
    NO_PURCHASE,
    OTHER_PRICE,
    match_returns,
)
from loadtest.retail_dataset import read_dataset
from ops.services import CliServices
from tests.loadtest.test_replay import HEADER, REAL, ROWS, WORKERS, delete_sale_keys, write
from tests.support.gateway import open_gateway, run_workers

RETURNS = """\
C0,71053,LANTERN,-1,2010-12-01,3.39,1,EIRE
1,85123A,HEART,6,2010-12-01,2.55,1,EIRE
1,71053,LANTERN,4,2010-12-01,3.39,1,EIRE
1,85123A,HEART,2,2010-12-01,2.55,1,EIRE
2,85123A,HEART,3,2010-12-01,2.55,1,EIRE
3,85123A,HEART,9,2010-12-01,2.95,2,EIRE
C4,85123A,HEART,-5,2010-12-02,2.55,1,EIRE
C4,85123A,HEART,-7,2010-12-02,2.55,1,EIRE
C4,85123A,HEART,-6,2010-12-02,2.55,1,EIRE
C4,85123A,HEART,-1,2010-12-02,2.55,1,EIRE
C5,85123A,HEART,-1,2010-12-02,2.55,2,EIRE
C5,85123A,HEART,-1,2010-12-02,2.95,2,EIRE
C6,85123A,HEART,-1,2010-12-02,2.55,,EIRE
C7,D,Discount,-1,2010-12-02,27.5,1,EIRE
C7,85123A,HEART,1,2010-12-02,2.55,1,EIRE
C7,85123A,HEART,many,2010-12-02,2.55,1,EIRE
C7,85123A,HEART,-1,2010-12-02,free,1,EIRE
C8,85123A,HEART,-1,2010-12-02,2.55,3,EIRE
C9,71053,LANTERN,-4,2010-12-02,3.39,1,EIRE
10,71053,LANTERN,5,2010-12-02,3.39,1,EIRE
"""


def test_returns_take_units_of_the_latest_purchases_or_are_refused_with_the_reason(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, HEADER + RETURNS))
    plan = match_returns(dataset)
    assert [(matched.line.invoice, matched.line.number, matched.units) for matched in plan.matched] == [
        ("C4", 1, (("2", 0, 3), ("1", 0, 2))),
        ("C4", 3, (("1", 0, 4), ("1", 2, 2))),
        ("C5", 2, (("3", 0, 1),)),
        ("C9", 1, (("1", 1, 4),)),
    ]
    assert [(refused.line.invoice, refused.line.number, str(refused)) for refused in plan.refused] == [
        ("C0", 1, NO_EARLIER_PURCHASE),
        ("C4", 2, f"{MORE_THAN_IS_LEFT}: 6 units are left, not 7"),
        ("C4", 4, f"{MORE_THAN_IS_LEFT}: 0 units are left, not 1"),
        ("C5", 1, f"{OTHER_PRICE}: for [295] pennies, not 255"),
        ("C6", 1, NO_CUSTOMER),
        ("C7", 1, "a fee or a discount, no product"),
        ("C7", 2, "the quantity is '1', not below 0"),
        ("C7", 3, "the quantity is 'many', not below 0"),
        ("C7", 4, "'free' is not an amount like 2.55"),
        ("C8", 1, NO_PURCHASE),
    ]
    assert plan.matched_total == 11 * 255 + 295 + 4 * 339
    assert plan.refused_total == sum(line.total for line in dataset.returns) - plan.matched_total
    assert plan.count_reasons()[0] == (MORE_THAN_IS_LEFT, 2, 8 * 255)


@pytest.mark.skipif(not REAL, reason="FLOODGATE_TEST_DATASET does not name the data set")
def test_returns_of_real_dataset_agree_with_the_file() -> None:
    """The file is read here once more, by no code of the replay."""
    with gzip.open(REAL, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["InvoiceNo"].startswith("C")]
    amount = sum(-int(row["Quantity"]) * round(100 * float(row["UnitPrice"])) for row in rows)
    plan = match_returns(read_dataset(Path(REAL)))
    assert len(plan.matched) + len(plan.refused) == len(rows) == 84
    assert plan.matched_total + plan.refused_total == amount
    assert [(matched.line.invoice, matched.line.code, matched.units) for matched in plan.matched] == [
        ("C536506", "22960", (("536488", 2, 6),)),
        ("C536737", "22798", (("536537", 7, 2),)),
        ("C536758", "21314", (("536395", 6, 1),)),
        ("C536826", "35004B", (("536397", 0, 2),)),
        ("C536826", "35004B", (("536397", 0, 3),)),
        ("C536979", "84685", (("536557", 46, 1),)),
        ("C537024", "20893", (("536617", 9, 36),)),
    ]
    assert plan.matched_total == 13_610
    assert sorted(plan.count_reasons()) == [
        ("a fee or a discount, no product", 1, 2_750),
        (NO_EARLIER_PURCHASE, 1, 1_095),
        (NO_PURCHASE, 75, 301_503),
    ]


async def test_returns_are_refunded_once_to_the_penny(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path, HEADER + RETURNS)
    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        first = await replay(shop, gateway.base, file, 4)
        repeat = await replay(shop, gateway.base, file, 4)
        async with shop.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT orders.user_id, -sum(refunds.amount_minor)::bigint "
                "FROM refunds JOIN payments USING (payment_id) JOIN orders ON orders.order_id = payments.order_id "
                "WHERE refunds.status = 'done' GROUP BY 1 ORDER BY 1"
            )
            cases = await connection.fetch(
                "SELECT kind, status, items_state, created_by, count(*) FROM cases GROUP BY 1, 2, 3, 4"
            )
            returned = await connection.fetch(
                "SELECT sku, sum(returned)::integer FROM fulfilment_lines JOIN order_lines USING (order_id, line_no) "
                "WHERE returned > 0 GROUP BY 1 ORDER BY 1"
            )
            await connection.execute("UPDATE refund_grant_lines SET amount_minor = amount_minor - 1 WHERE quantity = 1")
        wrong = await replay(shop, gateway.base, file, 4)
    total = 11 * 255 + 295 + 4 * 339
    assert first.played == PlayedReturns(created=5, refunded_total=total)
    assert repeat.played == PlayedReturns(repeated=5, refunded_total=total)
    assert (first.is_complete, repeat.is_complete, wrong.is_complete) == (True, True, False)
    assert [tuple(row) for row in cases] == [("return", "resolved", "inspected", "replay", 5)]
    assert [tuple(row) for row in returned] == [("71053", 4), ("85123A", 11), ("85123A.at295", 1)]
    assert {row["user_id"]: row[1] for row in rows} == {"customer-1": 295 - total, "customer-2": -295}
    assert wrong.played is not None
    assert wrong.played.differences == ["3, line 0: 1 units over 294 pennies are refunded, not 1 over 295"]
    audit = await shop.audit.audit_sale(first.sale_id)
    assert audit.clean, audit.findings
    await delete_sale_keys(shop, first.sale_id)


@pytest.mark.parametrize("status", ["approved", "received", "inspected"])
async def test_run_that_ended_within_its_cases_is_continued_by_the_next(
    shop: CliServices, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Workers of shipments and cases run beside it, and plan and book what they can."""
    file = write(tmp_path, HEADER + RETURNS)
    advance = replay_cases.ReturnPlayer._advance

    async def end(player: replay_cases.ReturnPlayer, case: Case) -> None:
        if case.case.status == status:
            raise Conflict("the run ends here")
        await advance(player, case)

    async with (
        open_gateway(settings) as gateway,
        run_workers(settings, *WORKERS, "fulfilment_worker", "aftersales_worker"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(replay_cases.ReturnPlayer, "_advance", end)
            ended = await replay(shop, gateway.base, file, 4)
        result = await replay(shop, gateway.base, file, 4)
    assert ended.played is not None
    assert [text.rpartition(": ")[2] for text in ended.played.differences[:4]] == ["the run ends here"] * 4
    assert result.is_complete, (result.differences, result.played)
    assert result.played == PlayedReturns(repeated=5, refunded_total=11 * 255 + 295 + 4 * 339)
    audit = await shop.audit.audit_sale(result.sale_id)
    assert audit.clean, audit.findings
    await delete_sale_keys(shop, result.sale_id)


async def test_returns_without_payment_worker_are_differences(
    shop: CliServices, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_deliveries, "_PAID_TIMEOUT_S", 0.1)
    file = write(tmp_path, HEADER + ROWS)
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        result = await replay(shop, gateway.base, file, 4)
    assert (result.differences, result.is_complete) == ([], False)
    assert result.played is not None
    assert result.played.differences == ["C4, line 1: 1 is not paid after 0 s; does a payment worker run?"]
    await delete_sale_keys(shop, result.sale_id)
