"""`floodgate catalog`: products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from commerce.kernel.csv_rows import ImportReport, LineError
from ops.commands.console import err, fail, interactive, out, run
from ops.services import open_cli_services

app = typer.Typer(help="Products.", no_args_is_help=True)
CsvFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE.csv")]
ReportFile = Annotated[Path | None, typer.Option(help="write every refused line to this CSV file")]
_SHOWN = 50


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Make or change products from a CSV file with the columns sku, name, price (2.55) and currency (GBP).

    A wrong line is refused with its number and reason, and the rest goes in; status 2 says that there were such lines.
    A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines, progress_bar() as bar:
            task = bar.add_task("importing", total=_count_lines(file))
            async with open_cli_services() as shop:
                return await shop.catalog.import_csv(_counted(lines), lambda line: bar.update(task, completed=line))

    say_report(run(work()), report)


@app.command("show")
def show(sku: str) -> None:
    """Show a product."""

    async def work() -> Table:
        async with open_cli_services() as shop:
            product = await shop.catalog.get(sku)
        table = Table("SKU", "name", "price", "currency", "changed")
        table.add_row(
            product.sku, product.name, str(product.price), product.currency, f"{product.updated_at:%Y-%m-%d %H:%M:%S}"
        )
        return table

    out.print(run(work()))


def say_report(done: ImportReport, report: Path | None) -> None:
    """Say what an import did; if it refused lines, say which and end with status 2."""
    out.print(
        f"{done.lines} lines: {done.added} added, {done.changed} changed, {done.unchanged} as they were, "
        f"{len(done.errors)} refused",
        highlight=False,
    )
    say_refused(done.errors, report)
    if done.errors:
        raise typer.Exit(2)


def say_refused(refused: Sequence[LineError], report: Path | None) -> None:
    """The first refused lines on standard error, all of them in the file `report`."""
    if report is not None:
        with report.open("w", encoding="utf-8") as target:
            target.write("line,reason\n")
            target.writelines(f'{line.line},"{line.reason.replace(chr(34), chr(39))}"\n' for line in refused)
    for line in refused[:_SHOWN]:
        err.print(f"  line {line.line}: {line.reason}", highlight=False, markup=False, soft_wrap=True)
    if len(refused) > _SHOWN:
        err.print(f"  and {len(refused) - _SHOWN} more; --report FILE has all of them", highlight=False)


def progress_bar() -> Progress:
    """A bar on standard error, for those who watch."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not interactive(),
        transient=True,
    )


def _count_lines(file: Path) -> int:
    with file.open("rb") as data:
        return sum(block.count(b"\n") for block in iter(lambda: data.read(1 << 20), b""))


def _counted(lines: TextIO) -> Iterator[str]:
    try:
        yield from lines
    except OSError as error:
        fail(f"the file cannot be read: {error}")
