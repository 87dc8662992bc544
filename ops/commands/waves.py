"""`floodgate wave`: shipments that are picked in one walk through the warehouse."""

from __future__ import annotations

from typing import Annotated

import typer

from commerce.shipping.model import Wave
from ops.commands import documents
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.documents import WaveId
from ops.commands.safe_console import Table
from ops.commands.shipment_actions import parse_warehouse_id
from ops.services import open_cli_services, open_fulfilment

app = typer.Typer(help="Gather shipments into waves, and print their pick lists and labels.", no_args_is_help=True)


@app.command()
def create(
    warehouse: Annotated[str, typer.Option(help="id of the warehouse that packs the shipments")],
    max_shipments: Annotated[int, typer.Option(min=1, max=500)] = 50,
) -> None:
    """Gather a warehouse's shipments that are to be packed and have no wave, the oldest first."""

    async def work() -> Wave:
        warehouse_id = parse_warehouse_id(warehouse)
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.create_wave(warehouse_id, max_shipments, get_actor())

    _print(run_change(work()))


@app.command()
def show(wave_id: WaveId, json: JsonOption = False) -> None:
    """Show a wave: its shipments by number, and its pick list shelf by shelf."""

    async def work() -> Wave:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.get_wave(wave_id)

    wave = run(work())
    if json:
        print_json(wave)
    else:
        _print(wave)


def _print(wave: Wave) -> None:
    created = format_time(wave.created_at)
    print_line(f"wave {wave.wave_id}: {len(wave.shipments)} shipments in {wave.warehouse_id}, created at {created} UTC")
    shipments = Table("no.", "shipment")
    for number, shipment_id in enumerate(wave.shipments, 1):
        shipments.add_row(str(number), str(shipment_id))
    picks = Table("shelf", "SKU", "name", "units", "into shipments")
    for pick in wave.picks:
        into = ", ".join(f"{units} into {number}" for number, units in pick.shipments.items())
        picks.add_row(pick.shelf, pick.sku, pick.name, str(pick.quantity), into)
    for table in (shipments, picks):
        print_table(table)


app.add_typer(documents.wave_app)
