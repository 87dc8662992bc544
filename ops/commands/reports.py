"""`floodgate report`: figures of a period as tables, CSV and pictures."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from commerce.support_figures.model import AftersalesReport, GroupedBy
from commerce.support_figures.report_files import draw_report, write_csv
from commerce.support_figures.service import SupportFigures
from ops.commands.console import JsonOption, check_writable, exit_on_error, fail, print_json, print_table, run
from ops.commands.moment_arguments import read_moment
from ops.commands.product_quality import quality
from ops.commands.safe_console import Table
from ops.commands.sales_reports import recount_sales, sales
from ops.services import open_cli_services

app = typer.Typer(help="Report on a period.", no_args_is_help=True)
GroupName = StrEnum("GroupName", {name: name for name in get_args(GroupedBy)})  # type: ignore[misc]
app.command("sales")(sales)
app.command("recount-sales")(recount_sales)
app.command("quality")(quality)
_MOMENT = "a time like 2026-11-11T00:00:00, by the shop's clock"


@app.callback()
def _name_group() -> None:
    """Report on a period."""


@app.command()
def aftersales(
    start: Annotated[datetime, typer.Option("--from", parser=read_moment, metavar="TIME", help=f"begin: {_MOMENT}")],
    end: Annotated[
        datetime, typer.Option("--to", parser=read_moment, metavar="TIME", help="end, at most 92 days later; or now")
    ],
    by: Annotated[GroupName, typer.Option(help="groups of the figures")] = GroupName["total"],
    csv_file: Annotated[
        Path | None, typer.Option("--csv", callback=check_writable, help="write all figures to this file")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", callback=check_writable, help="draw times and shares into this file (.svg or .png)"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Report on support: times, deadlines, backlog, satisfaction, rules, and rates of returns."""

    async def work() -> AftersalesReport:
        group: Any = by.value
        async with open_cli_services() as shop:
            return await SupportFigures(shop.db, shop.clock).report(start, end, group)

    if picture is not None and picture.suffix not in (".svg", ".png"):
        fail(f"cannot draw {picture.name}: the file must end in .svg or .png")
    report = run(work())
    try:
        if csv_file is not None:
            with csv_file.open("w", encoding="utf-8", newline="") as target:
                write_csv(report, target)
        if picture is not None:
            with exit_on_error():
                draw_report(report, picture)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}; give another file")
    if json:
        print_json(report)
    else:
        _print_tables(report)


def _print_tables(report: AftersalesReport) -> None:
    clocks = Table("group", "clock", "count", "in time", "p50", "p90", "p50, all time", "p90, all time", "reopened")
    for clock in report.clocks:
        within = "" if clock.within_deadline is None else f"{clock.within_deadline:.1%}"
        times = (clock.worked_p50_s, clock.worked_p90_s, clock.passed_p50_s, clock.passed_p90_s)
        name = clock.clock.replace("_", " ")
        clocks.add_row(clock.group, name, str(clock.count), within, *map(_hours, times), str(clock.after_reopen))
    print_table(clocks, "no clock has stopped in this period")
    backlog = Table("group", "open now", "unanswered", "overdue", "age p50", "age p90", "oldest")
    for group in report.backlog:
        ages = map(_hours, (group.age_p50_s, group.age_p90_s, group.oldest_s))
        backlog.add_row(group.group, *map(str, (group.open, group.unanswered, group.overdue)), *ages)
    print_table(backlog, "no conversation is open")
    if report.satisfaction:
        satisfaction = Table("group", "answers", "average", "1", "2", "3", "4", "5")
        for answers in report.satisfaction:
            scores = map(str, answers.by_score)
            satisfaction.add_row(answers.group, str(answers.answers), f"{answers.average:.2f}", *scores)
        print_table(satisfaction)
    if report.decisions:
        decisions = Table("rules", "rule", "outcome", "decisions", "overturned")
        for rule in report.decisions:
            counts = map(str, (rule.decisions, rule.overturned))
            decisions.add_row(f"set {rule.rule_set_version}", str(rule.rule_no or ""), rule.outcome, *counts)
        print_table(decisions)
    returns = Table("by", "value", "cases", "units", "delivered", "rate")
    for figures in report.returns:
        rate = "" if figures.rate is None else f"{figures.rate:.1%}"
        counts = map(str, (figures.cases, figures.units, "" if figures.delivered is None else figures.delivered))
        returns.add_row(figures.key, figures.value, *counts, rate)
    print_table(returns, "no case was requested in this period")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
