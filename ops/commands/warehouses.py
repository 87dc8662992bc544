"""`floodgate warehouse`: where goods lie, and what they weigh."""

from __future__ import annotations

import typer
from rich.table import Table

from commerce.kernel.csv_rows import ImportReport
from commerce.warehouses.model import ProductLogistics, WarehouseSummary
from commerce.warehouses.service import Warehouses
from ops.commands.catalog import CsvFile, ReportFile, say_report
from ops.commands.console import out, run
from ops.services import open_cli_services

app = typer.Typer(help="Warehouses, and the goods that lie there.", no_args_is_help=True)


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Make or change warehouses or goods from a CSV file; a column sku says that it is goods.

    Warehouses: id, name, phone, country, city, line, latitude, longitude, and if you like province, district, postcode.
    Goods: sku, warehouse, shelf, weight_g, length_mm, width_mm, height_mm, packed as one unit is sent.

    A wrong line is refused with its number and reason, and the rest goes in; status 2 says that there were such lines.
    A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            async with open_cli_services() as shop:
                return await Warehouses(shop.db).import_csv(lines)

    say_report(run(work()), report)


@app.command()
def show() -> None:
    """Show the warehouses, and how many products lie in each."""

    async def work() -> list[WarehouseSummary]:
        async with open_cli_services() as shop:
            return await Warehouses(shop.db).show()

    table = Table("warehouse", "name", "address", "place", "products")
    found = run(work())
    for one in found:
        place, to = one.warehouse, one.warehouse.address
        address = ", ".join(part for part in (to.line, to.district, to.city, to.province, to.country) if part)
        where = f"{place.latitude}, {place.longitude}"
        table.add_row(place.warehouse_id, place.name, address, where, str(one.products))
    out.print(table if found else "there is no warehouse: floodgate warehouse import FILE.csv")


@app.command()
def goods(sku: str) -> None:
    """Show where a product lies, and its weight and size."""

    async def work() -> ProductLogistics:
        async with open_cli_services() as shop:
            return await Warehouses(shop.db).goods(sku)

    one = run(work())
    table = Table("SKU", "warehouse", "shelf", "weight", "size")
    size = f"{one.length_mm} x {one.width_mm} x {one.height_mm} mm"
    table.add_row(one.sku, one.warehouse_id, one.shelf, f"{one.weight_g} g", size)
    out.print(table)
