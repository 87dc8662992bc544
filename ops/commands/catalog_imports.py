"""`floodgate catalog import`, `export` and `imports`: files of products."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, BinaryIO
from uuid import UUID

import typer

from commerce.categories.model import CategoryId
from commerce.kernel.csv_records import CsvRecordReader
from commerce.kernel.csv_rows import ImportReport, LineError, split_lines
from commerce.kernel.errors import Invalid
from commerce.kernel.text_encodings import open_lines
from commerce.product_imports.model import (
    MAX_LINE_CHARS,
    ApplyInput,
    ImportFormat,
    LineOutcome,
    ProductImport,
    ReportLine,
)
from commerce.product_imports.service import ProductImports
from ops.commands.console import (
    JsonOption,
    ReportFile,
    check_writable,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_detail,
    print_import_report,
    print_json,
    print_line,
    print_line_errors,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Show imports of products and their reports, and apply them.", no_args_is_help=True)
ProductFile = Annotated[
    Path,
    typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE", is_eager=True),
]
ImportArgument = Annotated[str, typer.Argument(metavar="IMPORT", help="the import's id")]
OutcomeOption = Annotated[LineOutcome | None, typer.Option(help="only lines with this outcome")]
AnywayOption = Annotated[
    str | None, typer.Option(metavar="REASON", help="put products on sale whatever their quality; recorded")
]
_PAGE_SIZE = 500
_REPORT_COLUMNS = ("line", "outcome", "product_id", "sku", "column", "reason", "result")
_MAX_NAME_CHARS = 200
_CHUNK_BYTES = 1 << 20


def import_file(
    file: ProductFile,
    apply: Annotated[
        bool, typer.Option("--apply", help="create and change products; without it only the report is made")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(callback=check_writable, help="write the report, or refused lines, to this CSV file")
    ] = None,
    anyway: AnywayOption = None,
) -> None:
    """Import products from CSV or JSON Lines (FILE.jsonl): report every line, with --apply change them.

    A CSV file has a line per variant; product_id and sku say of which. A product with a wrong line is refused with the
    line, the column and the reason; all other products are imported. One that would go on sale and whose grade is too
    low is refused, with what to fix, unless --anyway says why. Status 2 if any line is refused or any product could not
    be stored. A repeated import changes nothing.

    A CSV file with the columns sku, name, price (2.55) and currency (GBP) is imported at once: a new SKU becomes a
    product on sale with one variant.
    """
    if anyway is not None and not apply:
        raise typer.BadParameter("it is for --apply: add that", param_hint="--anyway")

    async def work() -> ProductImport | ImportReport:
        options = parse_argument({"anyway": anyway}, ApplyInput) if apply else None
        with TemporaryFile() as source:
            _copy(file, source)
            if _is_list_of_variants(file, source):
                return await _import_variants(source.read(), file)
            async with open_cli_services() as shop:
                return await _import_products(shop, source, file, options, report)

    done = run_change(work())
    if isinstance(done, ImportReport):
        print_import_report(done, report)
    else:
        _finish(done)


def _copy(file: Path, target: BinaryIO) -> None:
    """Copy a file or a pipe, which can be read once."""
    try:
        with file.open("rb") as source:
            while piece := source.read(_CHUNK_BYTES):
                target.write(piece)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}; check the file and repeat the command") from None
    target.seek(0)


def _format_of(file: Path) -> ImportFormat:
    return "jsonl" if file.suffix.lower() in (".jsonl", ".ndjson", ".json") else "csv"


def _is_list_of_variants(file: Path, source: BinaryIO) -> bool:
    """Tell whether a file has variants only; then it names no products."""
    if _format_of(file) == "jsonl":
        return False
    names: list[str] = []
    try:
        reader = CsvRecordReader(enumerate(open_lines(source, MAX_LINE_CHARS), start=1))
        while (record := reader.read()) is not None and not names and not record.reason:
            names = [name.strip().lower() for name in record.fields]
    except Invalid:  # that is said when the lines are read
        names = ["name"]
    source.seek(0)
    return "product_id" not in names and not any(":" in name for name in names)


async def _import_variants(content: bytes, file: Path) -> ImportReport:
    lines = split_lines(content, file)
    with create_progress_bar() as bar:
        task = bar.add_task("importing", total=len(lines))
        async with open_cli_services() as shop:
            return await shop.catalog.import_csv(
                lines, lambda line: bar.update(task, completed=line), get_actor(), "imported from a file"
            )


async def _import_products(
    shop: CliServices, source: BinaryIO, file: Path, options: ApplyInput | None, report: Path | None
) -> ProductImport:
    """Make the report of a file, and with options apply it."""
    imports, name = shop.product_imports, file.name.encode("utf-8", "backslashreplace").decode()[-_MAX_NAME_CHARS:]
    current = await imports.add(source, name, _format_of(file), get_actor())
    current = await _work(imports, current, "checking")
    if options is not None:
        if current.status == "checked":
            current = await imports.apply(current.import_id, get_actor(), options.anyway)
        current = await _work(imports, current, "applying")
    if report is not None:
        with report.open("w", encoding="utf-8", newline="") as target:
            await _write_report(shop, current.import_id, None, target)
    refused = await imports.list_lines(current.import_id, 0, _PAGE_SIZE, "refused")
    print_line_errors([error for line in refused.items for error in _to_errors(line)], None)
    return current


async def _work(imports: ProductImports, current: ProductImport, step: str) -> ProductImport:
    """Do a step of an import to its end, with a progress bar."""
    with create_progress_bar() as bar:
        task = bar.add_task(step, total=current.lines)
        return await imports.finish(current.import_id, lambda line: bar.update(task, completed=line))


def _finish(current: ProductImport) -> None:
    """Print what became of an import. Ends the command with status 2 if something is refused."""
    print_line(
        f"{current.lines} lines: {current.created} created, {current.changed} changed, {current.unchanged} unchanged, "
        f"{current.refused} refused, {current.header_lines} of the header, {current.blank_lines} blank, "
        f"{current.continued_lines} continued, {current.unread_lines} not read"
    )
    if current.reason is not None:
        print_detail(f"the file is refused: {current.reason}")
    elif current.status == "applied":
        print_line(
            f"{current.products} products: {current.applied_products} applied, "
            f"{current.changed_meanwhile} changed meanwhile, {current.failed_products} failed"
        )
    elif current.products:
        print_detail(f"nothing is changed yet: floodgate catalog imports apply {current.import_id}")
    if current.reason is not None or current.refused or current.changed_meanwhile or current.failed_products:
        raise typer.Exit(2)


def _to_errors(line: ReportLine) -> list[LineError]:
    return [
        LineError(line.line, f"{fault.column}: {fault.reason}" if fault.column else fault.reason)
        for fault in line.faults
    ]


def export_file(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", callback=check_writable, help="left out or -: standard output"),
    ] = None,
    format: Annotated[  # noqa: A002  # the option's name
        ImportFormat | None, typer.Option(help="left out: by the name of the file, or csv")
    ] = None,
    category: Annotated[str | None, typer.Option(help="only products of this category and those below")] = None,
) -> None:
    """Export products with their variants, as CSV or JSON Lines. Imported again the file changes nothing."""
    target = None if file is None or str(file) == "-" else file
    chosen: ImportFormat = format or (_format_of(target) if target is not None else "csv")

    async def work() -> None:
        category_id = None if category is None else parse_argument(category, CategoryId)
        async with open_cli_services() as shop:
            pieces = shop.product_export.export(chosen, category_id)
            if target is None:
                await _write(pieces, sys.stdout.buffer)
            else:
                first = await anext(pieces, b"")
                with target.open("wb") as out:
                    out.write(first)
                    await _write(pieces, out)

    run(work())


async def _write(pieces: AsyncIterator[bytes], target: BinaryIO) -> None:
    async for piece in pieces:
        target.write(piece)
    target.flush()


@app.command("list")
def list_imports(json: JsonOption = False) -> None:
    """List imports of products, newest first, with their progress."""

    async def work() -> list[ProductImport]:
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.product_imports.list_imports(None if cursor is None else UUID(cursor), _PAGE_SIZE)
            )

    current = run(work())
    if json:
        print_json(current)
        return
    table = Table("import", "at (UTC)", "by", "file", "status", "lines", "created", "changed", "refused", "done")
    for item in current:
        table.add_row(
            *(str(item.import_id), format_time(item.created_at), item.created_by, item.file_name, item.status),
            *map(str, (item.lines, item.created, item.changed, item.refused)),
            f"{item.applied_lines if item.status in ('applying', 'applied') else item.checked_lines}",
        )
    print_table(table, "there are no imports: floodgate catalog import FILE")


@app.command()
def show(import_id: ImportArgument, json: JsonOption = False) -> None:
    """Show an import with its counts and its progress."""

    async def work() -> ProductImport:
        async with open_cli_services() as shop:
            return await shop.product_imports.get(parse_argument(import_id, UUID))

    current = run(work())
    if json:
        print_json(current)
        return
    print_values(
        (name.replace("_", " "), "" if value is None else value)
        for name in current.__struct_fields__
        for value in (getattr(current, name),)
    )


@app.command()
def report(import_id: ImportArgument, file: ReportFile = None, outcome: OutcomeOption = None) -> None:
    """Print the report of an import as CSV: line, outcome, product_id, sku, column, reason, result.

    A line with several faults, or several changed columns, stands there several times.
    """

    async def work() -> None:
        async with open_cli_services() as shop:
            current = parse_argument(import_id, UUID)
            await shop.product_imports.get(current)
            if file is None:
                await _write_report(shop, current, outcome, sys.stdout)
            else:
                with file.open("w", encoding="utf-8", newline="") as target:
                    await _write_report(shop, current, outcome, target)

    run(work())


@app.command()
def apply(import_id: ImportArgument, anyway: AnywayOption = None) -> None:
    """Apply a checked import: create and change its products. May be repeated after an interruption.

    A product that would go on sale and whose grade is too low is refused whole, unless --anyway says why.
    """

    async def work() -> ProductImport:
        async with open_cli_services() as shop:
            imports = shop.product_imports
            options = parse_argument({"anyway": anyway}, ApplyInput)
            current = await imports.apply(parse_argument(import_id, UUID), get_actor(), options.anyway)
            return await _work(imports, current, "applying")

    _finish(run_change(work()))


async def _write_report(shop: CliServices, import_id: UUID, outcome: LineOutcome | None, target: object) -> None:
    writer = csv.writer(target, lineterminator="\n")  # type: ignore[arg-type]
    writer.writerow(_REPORT_COLUMNS)
    cursor: str | None = "0"
    while cursor is not None:
        page = await shop.product_imports.list_lines(import_id, int(cursor), _PAGE_SIZE, outcome)
        for line in page.items:
            result = line.result or "" if line.detail is None else f"{line.result}: {line.detail}"
            reasons = [(fault.column, fault.reason) for fault in line.faults]
            for column, reason in reasons or [(name, "") for name in line.columns] or [("", "")]:
                writer.writerow((line.line, line.outcome, line.product_id, line.sku, column, reason, result))
        cursor = page.next
