"""`floodgate catalog`: products and their variants."""

from __future__ import annotations

import typer

from commerce.catalog.model import Variant
from commerce.kernel.csv_rows import ImportReport, read_lines
from ops.commands.console import (
    CsvFile,
    JsonOption,
    ReportFile,
    format_time,
    print_import_report,
    print_json,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import open_cli_services

app = typer.Typer(help="Import and show products.", no_args_is_help=True)


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Create or change variants from a CSV file: sku, name, price (2.55), currency (GBP).

    A wrong line is refused with its number and the reason; all other lines are imported. Status 2 if any line is
    refused. A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        lines = read_lines(file)
        with create_progress_bar() as bar:
            task = bar.add_task("importing", total=len(lines))
            async with open_cli_services() as shop:
                return await shop.catalog.import_csv(lines, lambda line: bar.update(task, completed=line))

    print_import_report(run_change(work()), report)


@app.command("show")
def show(sku: str, json: JsonOption = False) -> None:
    """Show a variant."""

    async def work() -> Variant:
        async with open_cli_services() as shop:
            return await shop.catalog.get(sku)

    variant = run(work())
    if json:
        print_json(variant)
        return
    table = Table("SKU", "name", "price", "currency", "changed (UTC)")
    table.add_row(variant.sku, variant.name, str(variant.price), variant.currency, format_time(variant.updated_at))
    print_table(table)
