"""PDF documents of `floodgate shipment` and `floodgate wave`: labels, packing lists and pick lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from commerce.fulfilment.printing import DocumentPrinter
from ops.commands.console import check_writable, fail, print_line, run
from ops.commands.shipment_actions import ShipmentId
from ops.services import open_cli_services, open_fulfilment

shipment_app = typer.Typer()
wave_app = typer.Typer()
WaveId = Annotated[UUID, typer.Argument(metavar="WAVE", help="the wave's id")]
PdfFile = Annotated[
    Path,
    typer.Option(
        "--out",
        callback=check_writable,
        dir_okay=False,
        metavar="FILE.pdf",
        help="written; an existing file is replaced",
    ),
]


@shipment_app.command("label")
def label(shipment_id: ShipmentId, file: PdfFile) -> None:
    """Print the label of a booked shipment. May be repeated."""
    _write(file, lambda printer: printer.print_label(shipment_id))


@shipment_app.command("packing-list")
def packing_list(shipment_id: ShipmentId, file: PdfFile) -> None:
    """Print a shipment's packing list, for its box."""
    _write(file, lambda printer: printer.print_packing_list(shipment_id))


@wave_app.command("pick-list")
def pick_list(wave_id: WaveId, file: PdfFile) -> None:
    """Print a wave's pick list: shelves and units."""
    _write(file, lambda printer: printer.print_pick_list(wave_id))


@wave_app.command("labels")
def labels(wave_id: WaveId, file: PdfFile) -> None:
    """Print the labels of a wave's booked shipments, in the wave's order. May be repeated."""
    _write(file, lambda printer: printer.print_labels(wave_id))


def _write(file: Path, render: Callable[[DocumentPrinter], Awaitable[bytes]]) -> None:
    """Render a document and write it to the file."""

    async def work() -> bytes:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await render(DocumentPrinter(shop.db, fulfilment, shop.settings.shipping.timezone))

    write_pdf(file, run(work()))


def write_pdf(file: Path, content: bytes) -> None:
    """Write a document to its file."""
    try:
        file.write_bytes(content)
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}; give another file with --out")
    print_line(f"{file}: {len(content):,} bytes")
