"""Reports on sales: groups, periods, currencies and stock; over HTTP and by command."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from commerce.kernel.errors import Invalid, ProblemError
from commerce.sales.errors import NoSuchSale
from commerce.sales_figures import service, visits
from commerce.sales_figures.errors import SalesReportTooLarge
from commerce.sales_figures.event_counter import EventCounter
from commerce.sales_figures.model import SalesFigures, SalesReport
from commerce.sales_figures.service import SalesQuery, SalesReports
from config.settings import Settings
from ops.services import CliServices
from tests.sales_figures.sold_history import PRICE, lapse, pay, store_order
from tests.support.commands import Command, make_command
from tests.support.gateway import TestGateway
from tests.support.processes import Processes
from tests.support.sales import CURRENCY, make_sale

ZONE = ZoneInfo("Asia/Shanghai")
OPENED = datetime(2026, 11, 10, 16, 0, tzinfo=UTC)  # midnight in Shanghai
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
async def sale(shop: CliServices, sale_id: str) -> str:
    """Open a sale, and sell 10 units of `a` for two days; an order of `b` lapses, nobody wants `c`."""
    items = {"a": (40, PRICE, None), "b": (20, PRICE, None), "c": (0, PRICE, None)}
    await make_sale(shop, sale_id, items, opens_at=OPENED)
    async with shop.db.transaction() as connection:
        for minute, units in ((0, {"a": 4}), (1, {"a": 1, "b": 2}), (24 * 60, {"a": 5})):
            at = OPENED + minute * _MINUTE
            order_id = await store_order(connection, shop, sale_id, units, at, CURRENCY)
            await (lapse if "b" in units else pay)(connection, order_id, at + _MINUTE)
        order_id = await store_order(connection, shop, sale_id, {"a": 1}, OPENED, CURRENCY)
        await pay(connection, order_id, OPENED + 2 * _MINUTE)
    await visits.record(
        shop.db, OPENED, {("viewed", sale_id, ""): 20, ("carted", sale_id, ""): 6, ("carted", sale_id, "a"): 6}
    )
    await visits.record(shop.db, OPENED, {("viewed", "", "a"): 9, ("viewed", "", "c"): 4, ("viewed", "", "other"): 3})
    await count(shop)
    return sale_id


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command({**Processes(settings, tmp_path).environment(), "FLOODGATE_SHOP__TIME_ZONE": ZONE.key})


async def count(shop: CliServices) -> None:
    counter = EventCounter(shop.db, shop.clock, ZONE)
    while await counter.step():
        pass


async def report(shop: CliServices, query: SalesQuery) -> SalesReport:
    return await SalesReports(shop.db, shop.clock, ZONE, shop.sales).report(query)


def rows_of(figures: list[SalesFigures]) -> dict[str, SalesFigures]:
    assert len({row.group for row in figures}) == len(figures)
    return {row.group: row for row in figures}


async def test_report_by_sku_has_the_way_to_the_payment_and_the_stock(shop: CliServices, sale: str) -> None:
    result = await report(shop, SalesQuery("sku", sale, end=OPENED + 4 * _DAY))
    [total] = result.totals
    assert (total.currency, total.views, total.carted, total.orders, total.paid_orders) == (CURRENCY, 20, 6, 4, 3)
    assert (total.units, total.amount, total.paid_units, total.paid_amount) == (13, 1_300, 10, 1_000)
    assert (total.lapsed_orders, total.lapsed_units, total.lapsed_amount) == (1, 3, 300)
    rows = rows_of(result.rows)
    assert (rows["a"].views, rows["a"].carted, rows["a"].orders, rows["a"].units) == (9, 6, 4, 11)
    assert (rows["b"].orders, rows["b"].lapsed_units, rows["b"].sold_units) == (1, 2, 0)
    assert (rows["c"].views, rows["c"].orders) == (4, 0)
    assert rows.keys() == {"a", "b", "c"}, "others were looked at, and are not in the sale"
    stock = {figures.sku: figures for figures in result.stock}
    assert (stock["a"].supplied, stock["a"].sold, stock["a"].free, stock["a"].sell_through) == (40, 10, 40, 0.25)
    assert stock["a"].days_left == pytest.approx(40 / (10 / 4), rel=0.01)
    assert (stock["b"].sold, stock["b"].sell_through, stock["b"].days_left) == (0, 0, None)
    assert (stock["c"].supplied, stock["c"].sell_through) == (0, None)
    only = await report(shop, SalesQuery("sku", sale, "a", end=OPENED + 4 * _DAY))
    assert [row.group for row in only.rows] == ["a"]
    assert only.rows[0] == rows["a"]
    assert [figures.sku for figures in only.stock] == ["a"]


async def test_report_by_day_and_minute_follows_the_shops_clock(shop: CliServices, sale: str) -> None:
    days = rows_of((await report(shop, SalesQuery("day", sale))).rows)
    assert {day: (row.orders, row.paid_units) for day, row in days.items()} == {
        "2026-11-11": (3, 5),
        "2026-11-12": (1, 5),
    }
    by_minute = await report(shop, SalesQuery("minute", sale))
    assert (by_minute.start, by_minute.end) == (OPENED, OPENED + 2 * _DAY)
    minutes = rows_of(by_minute.rows)
    assert {minute: (row.orders, row.paid_units, row.lapsed_units) for minute, row in minutes.items()} == {
        "2026-11-10T16:00:00Z": (2, 0, 0),
        "2026-11-10T16:01:00Z": (1, 4, 0),
        "2026-11-10T16:02:00Z": (0, 1, 3),
        "2026-11-11T16:00:00Z": (1, 0, 0),
        "2026-11-11T16:01:00Z": (0, 5, 0),
    }
    span = SalesQuery("minute", sale, "a", OPENED + timedelta(seconds=90), OPENED + timedelta(seconds=100))
    [row] = (await report(shop, span)).rows
    assert (row.group, row.units, row.paid_units) == ("2026-11-10T16:01:00Z", 1, 4)


async def test_report_by_reason_has_lapsed_units_by_sku(shop: CliServices, sale: str) -> None:
    result = (await report(shop, SalesQuery("reason", sale))).reasons
    assert [(row.figure, row.reason, row.sku, row.events, row.units) for row in result] == [
        ("lapsed", "expired", "", 1, 3),
        ("lapsed", "expired", "b", 1, 2),
        ("lapsed", "expired", "a", 1, 1),
    ]
    assert [row.sku for row in (await report(shop, SalesQuery("reason", sale, "b"))).reasons] == ["b"]


async def test_currencies_stay_apart_and_views_without_one_join_their_sku(
    shop: CliServices, sale: str, sale_prefix: str
) -> None:
    async with shop.db.transaction() as connection:
        await connection.execute(
            "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, created_at) "
            "VALUES ($1, 'Abroad', 'EUR', 'draft', $2, 900, $2)",
            *(f"{sale_prefix}-abroad", OPENED),
        )
        await store_order(connection, shop, f"{sale_prefix}-abroad", {"a": 3}, OPENED, "EUR")
    await count(shop)
    period = {"start": OPENED, "end": OPENED + 2 * _DAY}
    totals = (await report(shop, SalesQuery("total", **period))).totals  # type: ignore[arg-type]
    assert [(row.currency, row.orders, row.units, row.views) for row in totals] == [
        (CURRENCY, 4, 13, 20),
        ("EUR", 1, 3, 0),
    ]
    rows = (await report(shop, SalesQuery("sku", **period))).rows  # type: ignore[arg-type]
    assert [(row.group, row.currency, row.units, row.views) for row in rows] == [
        ("a", "", 0, 9),
        ("a", CURRENCY, 11, 0),
        ("a", "EUR", 3, 0),
        ("b", CURRENCY, 2, 0),
        ("c", "", 0, 4),
        ("other", "", 0, 3),
    ]


async def test_period_defaults_to_the_sale_or_the_last_days_and_is_whole_days(shop: CliServices, sale: str) -> None:
    now = datetime.fromtimestamp(shop.clock.now_ms() / 1000, UTC)
    result = await report(shop, SalesQuery("total", sale))
    assert (result.start, result.zone, result.counted_until) == (OPENED, ZONE.key, None)
    assert timedelta() <= result.end - now <= _DAY
    assert result.end.astimezone(ZONE).hour == 0
    every = await report(shop, SalesQuery())
    assert timedelta(days=30) <= every.end - every.start <= timedelta(days=31)
    inside = await report(shop, SalesQuery(start=OPENED + _MINUTE, end=OPENED + _DAY))
    assert (inside.start, inside.end) == (OPENED, OPENED + _DAY)
    later = await report(shop, SalesQuery(start=now + _DAY))
    assert later.start > now - _DAY
    async with shop.db.transaction() as connection:
        await store_order(connection, shop, sale, {"a": 1}, OPENED, CURRENCY)
    waiting = await report(shop, SalesQuery("total", sale))
    assert waiting.counted_until is not None
    assert waiting.counted_until >= now


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (SalesQuery(start=OPENED, end=OPENED), "at most 366 days"),
        (SalesQuery(start=OPENED, end=OPENED + 367 * _DAY), "at most 366 days"),
        (SalesQuery("minute"), "name one sale"),
        (SalesQuery("day", "no-such-sale"), "no sale"),
    ],
)
async def test_report_on_bad_period_or_sale_is_refused(shop: CliServices, query: SalesQuery, reason: str) -> None:
    with pytest.raises((Invalid, NoSuchSale)) as refusal:
        await report(shop, query)
    assert reason in refusal.value.detail


async def test_long_minutes_and_too_many_rows_are_refused(
    shop: CliServices, sale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match="2880 minutes"):
        await report(shop, SalesQuery("minute", sale, None, OPENED, OPENED + 2881 * _MINUTE))
    monkeypatch.setattr(service, "MAX_ROWS", 0)
    for by in ("sku", "reason"):
        with pytest.raises(SalesReportTooLarge) as refusal:
            await report(shop, SalesQuery(by, sale))  # type: ignore[arg-type]
        assert isinstance(refusal.value, ProblemError)


async def test_report_over_http_needs_a_role_and_refuses_unknown_values(gateway: TestGateway, sale: str) -> None:
    path = f"/v1/admin/reports/sales?sale_id={sale}"
    answer = await gateway.call("GET", f"{path}&by=sku", roles=["sales"])
    assert answer.status == 200, answer.text
    assert (answer.body["by"], answer.body["sale_id"], answer.body["zone"]) == ("sku", sale, "UTC")
    assert {row["group"]: row["paid_units"] for row in answer.body["rows"]} == {"a": 10, "b": 0, "c": 0}
    assert answer.body["stock"][0]["sku"] == "a"
    assert (await gateway.call("GET", path, roles=["catalog"])).body["by"] == "total"
    assert (await gateway.call("GET", path, roles=["support_read"])).status == 403
    assert (await gateway.call("GET", path)).status == 401
    assert (await gateway.call("GET", "/v1/admin/reports/sales?sale_id=no-such-sale", roles=["sales"])).status == 404
    for wrong in ("by=moon", "sale_id=A%20b", "sku=%20", "from=2026-11-11", "by=minute"):
        refused = await gateway.call("GET", f"/v1/admin/reports/sales?{wrong}", roles=["sales"])
        assert refused.status == 422, (wrong, refused.text)


async def test_report_by_command_has_table_csv_json_and_picture(
    shop: CliServices, floodgate: Command, sale: str, tmp_path: Path
) -> None:
    table, picture = tmp_path / "figures.csv", tmp_path / "figures.svg"
    status, text = await floodgate("report", "sales", "--sale", sale, "--csv", table, "--picture", picture)
    assert (status, "sell-through" in text, "25.0%" in text) == (0, True, True), text
    values = {
        (row["section"], row["group"], row["figure"]): row["value"]
        for row in csv.DictReader(table.read_text().splitlines())
    }
    assert (values["rows", "a", "paid_units"], values["totals", "", "orders"]) == ("10", "4")
    assert values["stock", "a", "supplied"] == "40"
    assert picture.read_bytes().startswith(b"<?xml")
    for by in ("total", "day", "minute", "reason"):
        status, text = await floodgate(
            *("report", "sales", "--sale", sale, "--by", by, "--picture", tmp_path / f"{by}.png", "--json")
        )
        assert status == 0, text
        assert json.loads(text[text.index("{") :])["by"] == by
        assert (tmp_path / f"{by}.png").read_bytes().startswith(b"\x89PNG")
    status, text = await floodgate("report", "sales", "--sale", sale, "--by", "reason")
    assert (status, "expired" in text) == (0, True), text
    status, text = await floodgate("report", "sales", "--picture", tmp_path / "figures.gif")
    assert (status, ".svg or .png" in text) == (1, True)
    status, text = await floodgate("report", "sales", "--sale", "no-such-sale")
    assert (status, "no sale" in text) == (1, True), text


async def test_recount_by_command_restores_the_sums(shop: CliServices, floodgate: Command, sale: str) -> None:
    right = await report(shop, SalesQuery("day", sale))
    async with shop.db.connection() as connection:
        await connection.execute("DELETE FROM sales_by_day WHERE figure = 'paid'")
        await connection.execute("UPDATE sales_by_minute SET units = 99 WHERE figure = 'accepted'")
    assert (await report(shop, SalesQuery("day", sale))).rows != right.rows
    status, text = await floodgate("report", "recount-sales", "--sale", sale)
    assert (status, "1 sales are counted again" in text) == (0, True), text
    assert (await report(shop, SalesQuery("day", sale))).rows == right.rows
    status, text = await floodgate("report", "recount-sales", "--from", "2026-11-12", "--to", "2026-11-11")
    assert (status, "swap them" in text) == (1, True), text
    assert (await floodgate("report", "recount-sales"))[0] == 0
    assert (await report(shop, SalesQuery("day", sale))).rows == right.rows
    assert (await floodgate("report", "recount-sales", "--sale", "no-such-sale"))[0] == 1
