"""`floodgate catalog quality` and `report quality`: grades of products, what to fix, history."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo

import typer

from commerce.categories.model import CategoryId
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.model import (
    LOWEST_POINTS,
    Grade,
    GradedProduct,
    HistoryGroup,
    HistoryStep,
    QualityFilter,
    QualityHistory,
    QualityReason,
)
from commerce.product_quality.quality_files import draw_quality, write_quality_csv
from commerce.product_quality.quality_history import HistoryQuery, QualityRecords
from commerce.product_quality.service import ProductQuality
from ops.commands.console import (
    JsonOption,
    check_writable,
    exit_on_error,
    fail,
    format_time,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    run,
)
from ops.commands.moment_arguments import read_day
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import open_cli_services

app = typer.Typer(help="Show the quality of products, and what to fix.", no_args_is_help=True)
GroupName = StrEnum("GroupName", {name: name for name in get_args(HistoryGroup)})  # type: ignore[misc]
StepName = StrEnum("StepName", {name: name for name in get_args(HistoryStep)})  # type: ignore[misc]
_MAX_LISTED = 1_000


@app.command("list")
def list_products(
    grade: Annotated[Grade | None, typer.Option(help="only products of this grade")] = None,
    reason: Annotated[QualityReason | None, typer.Option(help="only products with this fault")] = None,
    category: Annotated[str | None, typer.Option(help="only products of this category and below it")] = None,
    on_sale: Annotated[bool | None, typer.Option("--on-sale/--drafts", help="only products on sale, or drafts")] = None,
    count: Annotated[int, typer.Option(min=1, max=_MAX_LISTED, help="the worst so many")] = 50,
    json: JsonOption = False,
) -> None:
    """List products with their grade and what to fix, the worst first."""

    async def work() -> list[GradedProduct]:
        category_id = None if category is None else parse_argument(category, CategoryId)
        async with open_cli_services() as shop:
            wanted = QualityFilter(grade, reason, category_id, on_sale)
            return (await ProductQuality(shop.db).list_products(wanted, None, count)).items

    products = run(work())
    if json:
        print_json(products)
        return
    table = Table("product", "name", "grade", "points", "fault", "costs", "what to do")
    for product in products:
        labels: tuple[str, ...] = (
            product.product_id,
            next(iter(product.names.values()), ""),
            product.grade,
            str(product.points),
        )
        for finding in product.findings:
            table.add_row(*labels, finding.reason, str(finding.points), finding.detail)
            labels = ("", "", "", "")
        if not product.findings:
            table.add_row(*labels, "", "", "")
    print_table(table, "no product is like that")


@app.command()
def show(
    product_id: Annotated[str, typer.Argument(metavar="PRODUCT", help="the product's id")], json: JsonOption = False
) -> None:
    """Show the grade of a product and what to fix."""

    async def work() -> GradedProduct:
        async with open_cli_services() as shop:
            return await ProductQuality(shop.db).get(product_id)

    product = run(work())
    if json:
        print_json(product)
        return
    print_line(f"{product_id} has the grade {product.grade} with {product.points} points")
    print_detail(f"graded at {format_time(product.graded_at)} UTC")
    table = Table("fault", "costs", "what to do")
    for finding in product.findings:
        table.add_row(finding.reason, str(finding.points), finding.detail)
    print_table(table, "there is nothing to fix")


@app.command()
def recount() -> None:
    """Grade all products, and count those of today. Safe to repeat, and while workers run.

    Needed after a change of the settings of quality; otherwise products are graded when they change."""

    async def work() -> int:
        async with open_cli_services() as shop:
            grading = ProductGrading(shop.db, shop.clock, shop.settings.quality)
            with create_progress_bar() as bar:
                task = bar.add_task("grading", total=None)
                total = await grading.recount(lambda done: bar.update(task, completed=done))
            await QualityRecords(shop.db, shop.clock, ZoneInfo(shop.settings.shop.time_zone)).count()
            return total

    print_line(f"{run(work())} products are looked at")


def quality(
    start: Annotated[
        date | None, typer.Option("--from", parser=read_day, metavar="DAY", help="first day; by default 30 days")
    ] = None,
    end: Annotated[
        date | None, typer.Option("--to", parser=read_day, metavar="DAY", help="last day; by default today")
    ] = None,
    by: Annotated[GroupName, typer.Option(help="category: a row for each topmost category")] = GroupName["total"],
    step: Annotated[StepName | None, typer.Option(help="rows; by default by the length of the span")] = None,
    category: Annotated[str | None, typer.Option(help="only this topmost category")] = None,
    on_sale: Annotated[bool, typer.Option("--on-sale/--drafts", help="products on sale, or drafts")] = True,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", callback=check_writable, help="write all figures to this file")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", callback=check_writable, help="draw the figures into this file (.svg or .png)"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Report how many products had each grade at the end of each day; today, so far."""

    async def work() -> QualityHistory:
        group: Any = by.value
        length: Any = None if step is None else step.value
        category_id = None if category is None else parse_argument(category, CategoryId)
        async with open_cli_services() as shop:
            records = QualityRecords(shop.db, shop.clock, ZoneInfo(shop.settings.shop.time_zone))
            return await records.report(HistoryQuery(start, end, group, length, category_id, on_sale))

    if picture is not None and picture.suffix not in (".svg", ".png"):
        fail(f"cannot draw {picture.name}: the file must end in .svg or .png")
    report = run(work())
    try:
        if csv_file is not None:
            with csv_file.open("w", encoding="utf-8", newline="") as target:
                write_quality_csv(report, target)
        if picture is not None:
            with exit_on_error():
                draw_quality(report, picture)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}; give another file")
    if json:
        print_json(report)
        return
    table = Table("day", "category", "products", "average points", *LOWEST_POINTS)
    for row in report.rows:
        category_name = row.category_id or ("all" if report.by == "total" else "none")
        grades = [str(row.grades[name]) for name in LOWEST_POINTS]
        table.add_row(row.day.isoformat(), category_name, str(row.products), f"{row.average_points:.1f}", *grades)
    print_table(table, "no products were counted on these days; a quality_worker counts them")
