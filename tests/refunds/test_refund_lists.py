"""Refunds from a list: each row once and alone, shown before they are made."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import Invalid, NotReady
from commerce.kernel.postgres import Database
from commerce.refunds.list_csv import read_refund_list
from commerce.refunds.model import RefundLineInput, RefundListReport, RefundRow
from commerce.refunds.refund_lists import RefundLists
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.gateway import TestGateway
from tests.support.processes import Processes
from tests.support.refund_orders import LineOfOrder, RefundOrders


@pytest.fixture
def refunds(shop: CliServices) -> RefundOrders:
    return RefundOrders(shop)


async def add_orders(refunds: RefundOrders) -> list[UUID]:
    payments = ([("alipay", 300)], [("wechatpay", 200), ("balance", 100)])
    return [await refunds.add([LineOfOrder(3, 100)], list(tenders)) for tenders in payments]


def row(key: str, order_id: UUID, *, quantity: int = 0, amount: int | None = None) -> RefundRow:
    line = RefundLineInput(line_no=0, quantity=quantity) if quantity else None
    return RefundRow(key, order_id, "recalled", line, amount)


async def refund(refunds: RefundOrders, *rows: RefundRow, dry_run: bool = False) -> RefundListReport:
    shop = refunds.shop
    return await RefundLists(shop.db, shop.clock, shop.ids).refund("recall", rows, "staff sam", dry_run=dry_run)


def outcomes(report: RefundListReport) -> list[tuple[str, str, int]]:
    return [(result.row, result.outcome, result.amount) for result in report.rows]


def totals(report: RefundListReport) -> dict[str, int]:
    return {total.method: total.amount for total in report.totals}


async def test_bad_row_stops_no_other_and_a_repeat_refunds_nothing(refunds: RefundOrders) -> None:
    first, second = await add_orders(refunds)
    rows = [
        row("1", first, quantity=2),
        row("2", uuid4(), quantity=1),
        row("3", first, quantity=2),
        row("4", second, amount=30),
        row("5", second, amount=301),
        row("6", second, quantity=1),
        row("7", first),
    ]
    refused = {"2": "not_found", "3": "units_refunded", "5": "refund_exceeds_captured", "7": "invalid"}
    for _ in range(2):
        shown = await refund(refunds, *rows, dry_run=True)
        assert (totals(shown), await refunds.refunded(first)) == ({"alipay": 200, "wechatpay": 87, "balance": 43}, {})
    report = await refund(refunds, *rows)
    assert (outcomes(report), totals(report)) == (outcomes(shown), totals(shown))
    assert {result.row: result.code for result in report.rows if result.code} == refused
    assert await refunds.refunded(first) == {"alipay": 200}
    assert await refunds.refunded(second) == {"wechatpay": 87, "balance": 43}
    again = await refund(refunds, *rows)
    assert [outcome for _, outcome, _ in outcomes(again)].count("unchanged") == 3
    assert totals(again) == {}
    assert await refunds.refunded(first) == {"alipay": 200}
    changed = await refund(refunds, row("1", first, quantity=1))
    assert changed.rows[0].code == "key_reused"


async def test_racing_runs_of_a_list_refund_each_row_once(refunds: RefundOrders) -> None:
    first, second = await add_orders(refunds)
    rows = [row("1", first, quantity=1), row("2", second, quantity=1), row("3", first, quantity=1)]
    reports = await asyncio.gather(*(refund(refunds, *rows) for _ in range(4)))
    assert sum(outcome == "refunded" for report in reports for _, outcome, _ in outcomes(report)) == 3
    assert (await refunds.refunded(first), await refunds.refunded(second)) == (
        {"alipay": 200},
        {"wechatpay": 67, "balance": 33},
    )


async def test_lost_database_leaves_rows_to_repeat(refunds: RefundOrders, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await add_orders(refunds)
    transaction, calls = Database.transaction, 0

    @asynccontextmanager
    async def fail_first(self: Database, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise NotReady("cannot reach the database")
        async with transaction(self, **options) as connection:
            yield connection

    rows = [row("1", first, quantity=1), row("2", second, quantity=1)]
    with monkeypatch.context() as outage:
        outage.setattr(Database, "transaction", fail_first)
        report = await refund(refunds, *rows)
    assert [outcome for _, outcome, _ in outcomes(report)] == ["not_done", "refunded"]
    assert [outcome for _, outcome, _ in outcomes(await refund(refunds, *rows))] == ["refunded", "unchanged"]


async def test_key_twice_in_a_list_is_refused(refunds: RefundOrders) -> None:
    order_id = uuid4()
    with pytest.raises(Invalid, match="/rows/1/row"):
        await refund(refunds, row("1", order_id, quantity=1), row("1", order_id, quantity=2))


def test_file_is_read_row_by_row() -> None:
    order_id = uuid4()
    rows, errors = read_refund_list(
        [
            "row,order_id,line,quantity,amount,reason",
            f"1,{order_id},0,2,,",
            f"2,{order_id},1:3,1,,dented",
            f"3,{order_id},,,2.55,",
            f"3,{order_id},,,2.55,",
            f"5,{order_id},0,,,",
            f"6,{order_id},0,1,2.55,",
            f"7,{order_id},,,,",
            "8,order,,,1,",
            f"9,{order_id},x,1,,",
        ],
        "recalled",
        10,
    )
    assert [(read.row, read.line, read.amount, read.reason) for read in rows] == [
        ("1", {"line_no": 0, "ship_to": 0, "quantity": 2}, None, "recalled"),
        ("2", {"line_no": 1, "ship_to": 3, "quantity": 1}, None, "dented"),
        ("3", None, "2.55", "recalled"),
    ]
    assert [error.line for error in errors] == [5, 6, 7, 8, 9, 10]
    assert errors[0] == LineError(5, "the row 3 is on line 4 already")
    _, [error] = read_refund_list(["row,order_id,amount", f"1,{order_id},1"], None, 1)
    assert "no reason" in error.reason
    with pytest.raises(Invalid, match="more than 1 rows"):
        read_refund_list(["row,order_id,amount", f"1,{order_id},1", f"2,{order_id},1"], "r", 1)


async def test_command_previews_refunds_and_reports(settings: Settings, tmp_path: Path, refunds: RefundOrders) -> None:
    first, second = await add_orders(refunds)
    floodgate = make_command(Processes(settings, tmp_path).environment())
    file, report = tmp_path / "recall.csv", tmp_path / "report.csv"
    file.write_text(
        "row,order_id,line,quantity,amount\n"
        f"1,{first},0,2,\n2,{second},,,0.30\n3,{uuid4()},,,1\n4,{first},0,9,\n5,{second},,,0.001\n6,x,,,1\n"
    )
    status, output = await floodgate("payment", "refund-list", file, "--reason", "recalled", "--dry-run")
    assert (status, "6 rows: 2 refunded, 0 unchanged, 4 refused, 0 not done; nothing is stored" in output) == (2, True)
    assert await refunds.refunded(first) == {}
    command = ("payment", "refund-list", file, "--reason", "recalled", "--report", report)
    status, output = await floodgate(*command)
    assert (status, "so 1 are left" in output) == (2, True), output
    assert (await refunds.refunded(first), await refunds.refunded(second)) == (
        {"alipay": 200},
        {"wechatpay": 20, "balance": 10},
    )
    rows = [line.split(",")[:5] for line in report.read_text().splitlines()]
    assert rows[:3] == [
        ["row", "order_id", "outcome", "amount", "currency"],
        ["1", str(first), "refunded", "2.00", "CNY"],
        ["2", str(second), "refunded", "0.30", "CNY"],
    ]
    assert [row[2] for row in rows[3:]] == ["refused"] * 4
    assert "2 unchanged" in (await floodgate(*command))[1]


async def test_list_over_http_is_refunded_and_bounded(gateway: TestGateway, refunds: RefundOrders) -> None:
    first, second = await add_orders(refunds)
    body = {
        "name": "recall",
        "rows": [
            {"row": "1", "order_id": str(first), "reason": "recalled", "line": {"line_no": 0, "quantity": 1}},
            {"row": "2", "order_id": str(second), "reason": "recalled", "amount": 1_000},
        ],
    }
    staff: dict[str, Any] = {"user": "sam", "roles": ["support"]}
    for dry_run, refunded in ((True, {}), (False, {"alipay": 100})):
        answer = await gateway.call("POST", "/v1/admin/refund-lists", json=body | {"dry_run": dry_run}, **staff)
        assert answer.status == 200, answer.text
        assert [(result["outcome"], result["amount"]) for result in answer.body["rows"]] == [
            ("refunded", 100),
            ("refused", 0),
        ]
        assert await refunds.refunded(first) == refunded
    for wrong in ({"rows": []}, {"rows": body["rows"] * 251}, {"rows": body["rows"] * 2}, {"name": "a b"}):
        answer = await gateway.call("POST", "/v1/admin/refund-lists", json=body | wrong, **staff)
        assert answer.status == 422
