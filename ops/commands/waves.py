"""`floodgate wave`: parcels that are picked in one walk through the warehouse."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from commerce.shipping.model import Wave
from ops.commands import documents
from ops.commands.console import actor, out, run
from ops.commands.documents import WaveId
from ops.commands.shipment_actions import warehouse_id
from ops.services import open_cli_services, open_fulfilment

app = typer.Typer(help="Walks through the warehouse: parcels that are picked together.", no_args_is_help=True)


@app.command()
def make(
    warehouse: Annotated[str, typer.Option(help="where the parcels are packed")],
    parcels: Annotated[int, typer.Option(min=1, max=500, help="how many at most")] = 50,
) -> None:
    """Gather parcels that are to be packed in a warehouse and are in no wave yet, the oldest first."""

    async def work() -> Wave:
        place = warehouse_id(warehouse)
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.create_wave(place, parcels, actor())

    _print(run(work()))


@app.command()
def show(wave_id: WaveId) -> None:
    """Show a wave: its parcels by their numbers in it, and what is to be fetched for them, shelf by shelf."""

    async def work() -> Wave:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.wave(wave_id)

    _print(run(work()))


def _print(wave: Wave) -> None:
    made = f"{wave.created_at:%Y-%m-%d %H:%M:%S}"
    title = f"wave {wave.wave_id}: {len(wave.shipments)} parcels in {wave.warehouse_id}, made at {made} UTC"
    out.print(title, highlight=False, markup=False, soft_wrap=True)
    shipments = Table("no.", "parcel")
    for number, shipment_id in enumerate(wave.shipments, 1):
        shipments.add_row(str(number), str(shipment_id))
    picks = Table("shelf", "SKU", "name", "units", "into parcels")
    for pick in wave.picks:
        into = ", ".join(f"{units} into {number}" for number, units in pick.shipments.items())
        picks.add_row(pick.shelf, pick.sku, pick.name, str(pick.quantity), into)
    for table in (shipments, picks):
        out.print(table, markup=False)


app.add_typer(documents.of_waves)
