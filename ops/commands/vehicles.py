"""`floodgate vehicle`: our own vehicles, and the coordinates of places."""

from __future__ import annotations

import typer

from commerce.fleet.model import Vehicle
from commerce.kernel.csv_rows import ImportReport, read_lines
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
from ops.services import create_fleet, open_cli_services

app = typer.Typer(help="Import and list our own vehicles, and import coordinates of places.", no_args_is_help=True)


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Create or change vehicles or places from a CSV file.

    Vehicles: vehicle_id, warehouse_id, capacity_g, shift_from, shift_to (08:00), and optionally break_from, break_to
    and break_s (a pause of so many seconds between the two), and active (yes or no). Places (files with a column
    region): region (cn/zhejiang/hangzhou, or a postcode as cn/310000), latitude, longitude.

    A wrong line is refused with its number and the reason; all other lines are imported. Status 2 if any line is
    refused. A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        lines = read_lines(file)
        async with open_cli_services() as shop:
            return await create_fleet(shop).import_csv(lines)

    print_import_report(run_change(work()), report)


@app.command("list")
def list_vehicles(json: JsonOption = False) -> None:
    """List the vehicles with their capacity, shift and break."""

    async def work() -> list[Vehicle]:
        async with open_cli_services() as shop:
            return await create_fleet(shop).list_vehicles()

    vehicles = run(work())
    if json:
        print_json(vehicles)
        return
    table = Table("vehicle", "warehouse", "capacity", "shift", "break", "active")
    for vehicle in vehicles:
        table.add_row(
            vehicle.vehicle_id,
            vehicle.warehouse_id,
            f"{vehicle.capacity_g / 1_000:,.0f} kg",
            f"{vehicle.shift_from:%H:%M}-{vehicle.shift_to:%H:%M}",
            f"{vehicle.break_s // 60} min, {vehicle.break_from:%H:%M}-{vehicle.break_to:%H:%M}"
            if vehicle.break_s
            else "",
            "yes" if vehicle.active else "no",
        )
    print_table(table, "there is no vehicle: floodgate vehicle import FILE.csv")
