"""`floodgate warehouse`: warehouses, and product logistics: shelf, weight and size."""

from __future__ import annotations

from typing import Annotated

import typer

from commerce.kernel.csv_rows import ImportReport, read_lines
from commerce.warehouses.model import ProductLogistics, WarehouseSummary
from commerce.warehouses.service import Warehouses
from ops.commands.console import (
    CsvFile,
    JsonOption,
    ReportFile,
    print_import_report,
    print_json,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Import and show warehouses, and the weight, size and shelf of products.", no_args_is_help=True)


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Create or change warehouses or product logistics from a CSV file.

    Warehouses: id, name, phone, country, city, line, latitude, longitude, and optionally province, district, postcode.
    Product logistics (files with a column sku): sku, warehouse, shelf, weight_g, length_mm, width_mm, height_mm, of one
    packed unit.

    A wrong line is refused with its number and the reason; all other lines are imported. Status 2 if any line is
    refused. A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        lines = read_lines(file)
        async with open_cli_services() as shop:
            return await Warehouses(shop.db).import_csv(lines)

    print_import_report(run_change(work()), report)


@app.command()
def show(json: JsonOption = False) -> None:
    """Show the warehouses, with the number of products in each."""

    async def work() -> list[WarehouseSummary]:
        async with open_cli_services() as shop:
            return await Warehouses(shop.db).list_warehouses()

    summaries = run(work())
    if json:
        print_json(summaries)
        return
    table = Table("warehouse", "name", "address", "coordinates", "products")
    for summary in summaries:
        warehouse, to = summary.warehouse, summary.warehouse.address
        address = ", ".join(part for part in (to.line, to.district, to.city, to.province, to.country) if part)
        coordinates = f"{warehouse.latitude}, {warehouse.longitude}"
        table.add_row(warehouse.warehouse_id, warehouse.name, address, coordinates, str(summary.products))
    print_table(table, "there is no warehouse: floodgate warehouse import FILE.csv")


@app.command()
def product(sku: Annotated[str, typer.Argument(metavar="SKU")], json: JsonOption = False) -> None:
    """Show a product's warehouse, shelf, weight and size."""

    async def work() -> ProductLogistics:
        async with open_cli_services() as shop:
            return await Warehouses(shop.db).get_product_logistics(sku)

    logistics = run(work())
    if json:
        print_json(logistics)
        return
    table = Table("SKU", "warehouse", "shelf", "weight", "size")
    size = f"{logistics.length_mm} x {logistics.width_mm} x {logistics.height_mm} mm"
    table.add_row(logistics.sku, logistics.warehouse_id, logistics.shelf, f"{logistics.weight_g} g", size)
    print_table(table)
