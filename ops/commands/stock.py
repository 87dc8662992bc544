"""`floodgate stock`: the stock of warehouses, its movements and warnings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.csv_rows import ImportReport, read_lines
from commerce.warehouse_stock.model import (
    CountInput,
    ItemAllotment,
    MovementInput,
    StockLevel,
    StockTransferInput,
    WarehouseId,
    WarehouseMovement,
    WarningInput,
)
from commerce.warehouse_stock.service import WarehouseStock
from ops.commands.console import (
    CsvFile,
    JsonOption,
    ReportFile,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_import_report,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Receive, count, move and show the stock of warehouses.", no_args_is_help=True)
Sku = Annotated[str, typer.Argument(metavar="SKU")]
Warehouse = Annotated[str, typer.Argument(metavar="WAREHOUSE")]
Units = Annotated[int, typer.Argument(metavar="UNITS")]
Reason = Annotated[str, typer.Option(help="recorded with the movement")]
Reference = Annotated[str | None, typer.Option(help="what it belongs to, such as a delivery or a case")]
MovementId = Annotated[UUID | None, typer.Option(help="repeat a movement whose outcome is unknown")]
_PAGE_SIZE = 1_000


@app.command("import")
def import_file(
    file: CsvFile,
    reason: Annotated[str, typer.Option(help="recorded with each movement")] = "imported count",
    report: ReportFile = None,
) -> None:
    """Record counts from a CSV file: warehouse, sku, units, and optionally warn_below.

    A line sets the units on hand, allotted ones too; the difference is its movement. A wrong line is refused with its
    number and the reason; all other lines are recorded. Status 2 if any line is refused. A repeat changes nothing.
    """

    async def work() -> ImportReport:
        lines, checked = read_lines(file), parse_argument({"units": 0, "reason": reason}, CountInput)
        async with open_cli_services() as shop:
            return await WarehouseStock(shop.db, shop.clock, shop.ids).import_counts(lines, checked.reason, get_actor())

    print_import_report(run_change(work()), report)


@app.command()
def receive(
    sku: Sku,
    warehouse: Warehouse,
    units: Units,
    reason: Reason = "delivered",
    reference: Reference = None,
    returned: Annotated[bool, typer.Option("--returned", help="they came back from a customer or a carrier")] = False,
    movement_id: MovementId = None,
) -> None:
    """Record units that a warehouse received."""
    values = {
        "kind": "returned" if returned else "received",
        "units": units,
        "reason": reason,
        "reference": reference,
    }
    _record(lambda stock: stock.record(sku, warehouse, parse_argument(values, MovementInput), get_actor(), movement_id))


@app.command()
def damage(
    sku: Sku,
    warehouse: Warehouse,
    units: Units,
    reason: Reason,
    reference: Reference = None,
    movement_id: MovementId = None,
) -> None:
    """Record units that are damaged or gone. Units that sales have cannot be taken."""
    values = {"kind": "damaged", "units": units, "reason": reason, "reference": reference}
    _record(lambda stock: stock.record(sku, warehouse, parse_argument(values, MovementInput), get_actor(), movement_id))


@app.command()
def count(
    sku: Sku,
    warehouse: Warehouse,
    units: Units,
    reason: Reason = "counted",
    reference: Reference = None,
    movement_id: MovementId = None,
) -> None:
    """Set the units on hand to those that were counted, allotted ones too."""
    values = {"units": units, "reason": reason, "reference": reference}
    _record(lambda stock: stock.count(sku, warehouse, parse_argument(values, CountInput), get_actor(), movement_id))


@app.command()
def move(
    sku: Sku,
    warehouse: Warehouse,
    to: Annotated[str, typer.Argument(metavar="TO")],
    units: Units,
    reason: Reason = "moved",
    reference: Reference = None,
    movement_id: MovementId = None,
) -> None:
    """Move units that no sale has from one warehouse to another."""
    values = {"to_warehouse": to, "units": units, "reason": reason, "reference": reference}

    async def transfer(stock: WarehouseStock) -> WarehouseMovement:
        moved = await stock.transfer(
            sku, warehouse, parse_argument(values, StockTransferInput), get_actor(), movement_id
        )
        print_line(_describe(moved[0]))
        return moved[1]

    _record(transfer)


@app.command()
def warn(
    sku: Sku,
    warehouse: Warehouse,
    below: Annotated[int | None, typer.Argument(metavar="UNITS", help="left out: never")] = None,
) -> None:
    """Set the units on hand below which a stock is low."""

    async def work() -> StockLevel:
        warn_below = parse_argument({"warn_below": below}, WarningInput).warn_below
        async with open_cli_services() as shop:
            return await WarehouseStock(shop.db, shop.clock, shop.ids).set_warning(sku, warehouse, warn_below)

    level = run_change(work())
    print_line(f"{level.sku} in {level.warehouse_id}: warning below {level.warn_below or 'nothing'}")


@app.command()
def show(
    sku: Annotated[str | None, typer.Argument(metavar="SKU", help="left out: all")] = None,
    warehouse: Annotated[str | None, typer.Option(metavar="WAREHOUSE", help="only of this warehouse")] = None,
    low: Annotated[bool, typer.Option("--low", help="only stocks below their warning")] = False,
    json: JsonOption = False,
) -> None:
    """Show the units of each SKU in each warehouse."""

    async def work() -> list[StockLevel]:
        of_warehouse = parse_argument(warehouse, WarehouseId) if warehouse is not None else None
        async with open_cli_services() as shop:
            stock = WarehouseStock(shop.db, shop.clock, shop.ids)
            return await list_all(lambda after: stock.list_levels(after, _PAGE_SIZE, sku, of_warehouse, low=low))

    levels = run(work())
    if json:
        print_json(levels)
        return
    table = Table("SKU", "warehouse", "on hand", "allotted", "free", "warning below")
    for level in levels:
        units = level.on_hand, level.allotted, level.free
        table.add_row(level.sku, level.warehouse_id, *map(str, units), str(level.warn_below or ""))
    print_table(table, "nothing is low" if low else "no warehouse keeps any stock: floodgate stock import FILE.csv")


@app.command()
def movements(
    sku: Sku,
    warehouse: Annotated[str | None, typer.Option(metavar="WAREHOUSE", help="only of this warehouse")] = None,
    last: Annotated[int, typer.Option(min=1, max=_PAGE_SIZE, help="how many, newest first")] = 50,
    json: JsonOption = False,
) -> None:
    """Show the movements of a SKU's stock, newest first."""

    async def work() -> list[WarehouseMovement]:
        async with open_cli_services() as shop:
            stock = WarehouseStock(shop.db, shop.clock, shop.ids)
            return (await stock.list_movements(sku, warehouse, None, last)).items

    moved = run(work())
    if json:
        print_json(moved)
        return
    table = Table("time (UTC)", "warehouse", "movement", "on hand", "allotted", "sale", "reference", "reason", "actor")
    for movement in moved:
        table.add_row(
            *(format_time(movement.moved_at), movement.warehouse_id, movement.kind),
            f"{movement.on_hand_delta:+d} = {movement.on_hand}",
            f"{movement.allotted_delta:+d} = {movement.allotted}",
            *(movement.sale_id or "", movement.reference or "", movement.reason, movement.actor),
        )
    print_table(table)


@app.command()
def allotments(sale_id: Annotated[str, typer.Argument(metavar="SALE")], json: JsonOption = False) -> None:
    """Show the items of a sale whose units are allotted from warehouses."""

    async def work() -> list[ItemAllotment]:
        async with open_cli_services() as shop:
            await shop.sales.get(sale_id)
            stock = WarehouseStock(shop.db, shop.clock, shop.ids)
            return await list_all(lambda after: stock.list_allotments(sale_id, after, _PAGE_SIZE))

    items = run(work())
    if json:
        print_json(items)
        return
    table = Table("SKU", "needed", "allotted", "in warehouses", "in shipments")
    for item in items:
        table.add_row(item.sku, *map(str, (item.needed, item.allotted, item.units, item.planned)))
    print_table(table, f"nothing is allotted to {sale_id}: no warehouse kept its products when its items were set")


def _record(record: Callable[[WarehouseStock], Awaitable[WarehouseMovement]]) -> None:
    async def work() -> WarehouseMovement:
        async with open_cli_services() as shop:
            return await record(WarehouseStock(shop.db, shop.clock, shop.ids))

    print_line(_describe(run_change(work())))


def _describe(movement: WarehouseMovement) -> str:
    place = f"{movement.sku} in {movement.warehouse_id}"
    return (
        f"{place}: {movement.kind} {movement.on_hand_delta:+d}, {movement.on_hand} on hand, "
        f"{movement.allotted} of them allotted (movement {movement.movement_id})"
    )
