"""`floodgate report sales` and `recount-sales`: figures of sales, and how they are counted again."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

import typer

from commerce.sales_figures.event_counter import EventCounter
from commerce.sales_figures.model import SalesFigures, SalesGroup, SalesReport
from commerce.sales_figures.sales_files import draw_sales, write_sales_csv
from commerce.sales_figures.service import SalesQuery, SalesReports
from ops.commands.console import (
    JsonOption,
    check_writable,
    exit_on_error,
    fail,
    print_detail,
    print_json,
    print_line,
    print_table,
    run,
)
from ops.commands.moment_arguments import format_clocks, read_day, read_moment
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cli_services

SalesGroupName = StrEnum("SalesGroupName", {name: name for name in get_args(SalesGroup)})  # type: ignore[misc]


def sales(
    sale_id: Annotated[str | None, typer.Option("--sale", metavar="SALE", help="only this sale")] = None,
    sku: Annotated[str | None, typer.Option(help="only units of this SKU")] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from", parser=read_moment, metavar="TIME", help="begin; by default the sale's opening, or 30 days ago"
        ),
    ] = None,
    end: Annotated[
        datetime | None, typer.Option("--to", parser=read_moment, metavar="TIME", help="end; by default now")
    ] = None,
    by: Annotated[SalesGroupName, typer.Option(help="groups of the figures")] = SalesGroupName["sku"],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", callback=check_writable, help="write all figures to this file")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", callback=check_writable, help="draw the figures into this file (.svg or .png)"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Report on sales: views, orders, payments, cancellations, returns and refunds.

    The period is extended to whole days, or by minute to whole minutes."""

    async def work() -> SalesReport:
        group: Any = by.value
        async with open_cli_services() as shop:
            reports = SalesReports(shop.db, shop.clock, _zone(shop), shop.sales)
            return await reports.report(SalesQuery(group, sale_id, sku, start, end))

    if picture is not None and picture.suffix not in (".svg", ".png"):
        fail(f"cannot draw {picture.name}: the file must end in .svg or .png")
    report = run(work())
    try:
        if csv_file is not None:
            with csv_file.open("w", encoding="utf-8", newline="") as target:
                write_sales_csv(report, target)
        if picture is not None:
            with exit_on_error():
                draw_sales(report, picture)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}; give another file")
    if json:
        print_json(report)
    else:
        _print_sales(report)


def recount_sales(
    sale_id: Annotated[str | None, typer.Option("--sale", metavar="SALE", help="only this sale")] = None,
    first_day: Annotated[
        date | None, typer.Option("--from", parser=read_day, metavar="DAY", help="first day; by default all days")
    ] = None,
    last_day: Annotated[date | None, typer.Option("--to", parser=read_day, metavar="DAY", help="last day")] = None,
) -> None:
    """Count sales again from their orders, payments, shipments and returns. Safe to repeat.

    Needed once for what happened before this version, and after a change of the shop's time zone. Until it is done,
    reports on these days show less. What gateways have counted stays."""

    async def work() -> int:
        async with open_cli_services() as shop:
            counter = EventCounter(shop.db, shop.clock, _zone(shop))
            if sale_id is not None:
                await shop.sales.get(sale_id)
            sale_ids = [sale_id] if sale_id else [sale.sale_id for sale in await shop.sales.list_opened()]
            for each in sale_ids:
                await counter.recount(each, first_day, last_day)
                while await counter.step():
                    pass
            return len(sale_ids)

    if first_day is not None and last_day is not None and last_day < first_day:
        fail("cannot count again: `--to` is before `--from`; swap them")
    print_line(f"{run(work())} sales are counted again")


def _zone(shop: CliServices) -> ZoneInfo:
    return ZoneInfo(shop.settings.shop.time_zone)


def _print_sales(report: SalesReport) -> None:
    print_detail(f"{format_clocks(report.start)} to {format_clocks(report.end)}, days of {report.zone}")
    if report.counted_until is not None:
        print_detail(f"counted until {format_clocks(report.counted_until)}; later figures may be missing")
    ordered = ("views", "carts", "sold out", "orders", "units", "amount", "lapsed")
    paid = ("paid", "paid amount", "cancelled", "delivered")
    table = Table(report.by, "currency", *ordered, *paid, "returned", "refunded")
    for row in [*report.rows, *report.totals]:
        is_total = report.by == "total" or row not in report.rows
        table.add_row("all" if is_total else row.group, row.currency, *_format_row(row))
    print_table(table, "nothing has happened in this period")
    if report.stock:
        stock = Table("sku", "supplied", "sold", "sell-through", "free", "days left")
        for each in report.stock:
            through = "" if each.sell_through is None else f"{each.sell_through:.1%}"
            left = "" if each.days_left is None else f"{each.days_left:.1f}"
            free = "" if each.free is None else str(each.free)
            stock.add_row(each.sku, str(each.supplied), str(each.sold), through, free, left)
        print_table(stock)
    if report.by == "reason":
        reasons = Table("figure", "reason", "sku", "currency", "events", "units", "amount")
        for reason in report.reasons:
            numbers = map(str, (reason.events, reason.units, reason.amount))
            reasons.add_row(reason.figure, reason.reason, reason.sku or "all", reason.currency, *numbers)
        print_table(reasons, "nothing was cancelled, returned or refunded in this period")


def _format_row(row: SalesFigures) -> list[str]:
    """Format the main figures; JSON and CSV have all. What was recovered did not lapse."""
    ordered = (
        row.views,
        row.carted,
        row.sold_out,
        row.orders,
        row.units,
        row.amount,
        row.lapsed_units - row.recovered_units,
    )
    paid = (row.paid_units, row.paid_amount, row.cancelled_units, row.delivered_units)
    returned = (row.requested_units - row.withdrawn_units, row.refunded_amount)
    return [str(value) for value in (*ordered, *paid, *returned)]
