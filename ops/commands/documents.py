"""What is printed for parcels and waves, as PDF files: labels and lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from ops.commands.console import fail, out, run
from ops.commands.shipment_actions import ShipmentId
from ops.services import open_cli_services, open_fulfilment

if TYPE_CHECKING:
    from commerce.fulfilment.printing import DocumentPrinter

of_shipments = typer.Typer()
of_waves = typer.Typer()
WaveId = Annotated[UUID, typer.Argument(metavar="WAVE", help="the wave's id")]
PdfFile = Annotated[
    Path, typer.Option("--out", dir_okay=False, metavar="FILE.pdf", help="a file that is there is written over")
]


@of_shipments.command("label")
def label(shipment_id: ShipmentId, file: PdfFile) -> None:
    """Print a parcel's label, as often as you like; once a carrier is booked."""
    _write(file, lambda papers: papers.label(shipment_id))


@of_shipments.command("packing-list")
def packing_list(shipment_id: ShipmentId, file: PdfFile) -> None:
    """Print what is in a parcel, for its box."""
    _write(file, lambda papers: papers.packing_list(shipment_id))


@of_waves.command("pick-list")
def pick_list(wave_id: WaveId, file: PdfFile) -> None:
    """Print what is to be fetched for a wave, shelf by shelf."""
    _write(file, lambda papers: papers.pick_list(wave_id))


@of_waves.command("labels")
def labels(wave_id: WaveId, file: PdfFile) -> None:
    """Print the labels of a wave's parcels that are booked, in the wave's order, as often as you like."""
    _write(file, lambda papers: papers.labels(wave_id))


def _write(file: Path, printed: Callable[[DocumentPrinter], Awaitable[bytes]]) -> None:
    async def work() -> bytes:
        from commerce.fulfilment.printing import DocumentPrinter  # noqa: PLC0415  # slow to load, and no other command needs it

        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await printed(DocumentPrinter(shop.db, desk, shop.settings.shipping.timezone))

    content = run(work())
    try:
        file.write_bytes(content)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")
    out.print(f"{file}: {len(content):,} bytes", highlight=False, markup=False, soft_wrap=True)
