"""Commands of `floodgate shipment` that change shipments.

A fulfilment worker makes the calls to carriers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
import typer

from commerce.cancellations.model import Cancellation
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.address import Address
from commerce.kernel.errors import Invalid
from commerce.kernel.text_files import decode_text
from commerce.kernel.types import Reason
from commerce.shipping.model import (
    Appointment,
    Shipment,
    ShipmentDetails,
    ShipmentJob,
    ShipmentStatus,
    TrackingNo,
    WarehouseId,
)
from ops.commands.console import get_actor, parse_argument, print_line, run_change
from ops.services import open_cancellations, open_cli_services, open_fulfilment

app = typer.Typer()
ShipmentId = Annotated[UUID, typer.Argument(metavar="ID", help="the shipment's id")]
ReasonOption = Annotated[str, typer.Option("--reason", help="recorded, and shown to the customer")]
OutcomeStatus = StrEnum("OutcomeStatus", {name: name for name in ("delivered", "lost", "returned_to_sender")})  # type: ignore[misc]
_UNITS = re.compile(r"([0-9]{1,4})=([0-9]{1,7})")
_MAX_ADDRESS_BYTES = 65_536


@app.command()
def pack(
    shipment_id: ShipmentId,
    tracking_no: Annotated[
        str | None, typer.Option(help="the carrier's number from its label, for carriers that staff book with")
    ] = None,
) -> None:
    """Record that a shipment is packed. A repeat changes nothing."""

    async def work(fulfilment: Fulfilment) -> ShipmentDetails:
        message = "--tracking-no: give 4 to 64 letters, digits and dashes, as printed on the label"
        checked_no = None if tracking_no is None else parse_argument(tracking_no, TrackingNo, message)
        return await fulfilment.pack(shipment_id, checked_no, get_actor())

    _change(work)


@app.command()
def hold(shipment_id: ShipmentId, reason: ReasonOption) -> None:
    """Stop all work on a shipment that is not handed over, until `floodgate shipment resume`."""
    _change(lambda fulfilment: fulfilment.hold(shipment_id, _parse_reason(reason), get_actor()))


@app.command()
def resume(shipment_id: ShipmentId) -> None:
    """Resume a shipment that is on hold. A repeat changes nothing."""
    _change(lambda fulfilment: fulfilment.resume(shipment_id, get_actor()))


@app.command()
def cancel(shipment_id: ShipmentId, reason: ReasonOption) -> None:
    """Cancel a shipment that is not handed over.

    Without a booking it is cancelled at once, otherwise when the carrier confirms. `floodgate shipment reship` sends
    its units after all.
    """
    _change(lambda fulfilment: fulfilment.cancel(shipment_id, _parse_reason(reason), get_actor()))


@app.command("set-outcome")
def set_outcome(
    shipment_id: ShipmentId,
    status: Annotated[OutcomeStatus, typer.Option(help="final status")],
    reason: ReasonOption,
) -> None:
    """Set a shipment's final status where the carrier's tracking events lack it."""
    _change(
        lambda fulfilment: fulfilment.set_outcome(
            shipment_id, ShipmentStatus(status), _parse_reason(reason), get_actor()
        )
    )


@app.command()
def resolve(shipment_id: ShipmentId, reason: ReasonOption) -> None:
    """Record how staff resolved a problem. The shipment leaves the worklists undelivered and anomalies."""
    _change(lambda fulfilment: fulfilment.resolve(shipment_id, _parse_reason(reason), get_actor()))


@app.command()
def reship(shipment_id: ShipmentId, reason: ReasonOption) -> None:
    """Send the units of a lost, returned or cancelled shipment again, in a new one. Once per shipment."""

    async def work(fulfilment: Fulfilment) -> list[UUID]:
        return [await fulfilment.repacking.reship(shipment_id, _parse_reason(reason), get_actor())]

    _repack(work)


@app.command()
def refund(shipment_id: ShipmentId, reason: ReasonOption) -> None:
    """Cancel the units of a shipment that is lost, came back or was stopped, and refund them."""

    async def work() -> Cancellation:
        async with open_cli_services() as shop, open_cancellations(shop) as cancellations:
            return await cancellations.refund_shipment(shipment_id, _parse_reason(reason), get_actor())

    cancellation = run_change(work())
    print_line(f"{sum(line.cancelled for line in cancellation.lines)} units of {cancellation.order_id} are cancelled")


@app.command()
def split(
    shipment_id: ShipmentId,
    line: Annotated[
        list[str],
        typer.Option(metavar="LINE=UNITS", help="units of an order line, such as 0=2; repeat it for other lines"),
    ],
) -> None:
    """Move units of a shipment without a booking into a new one.

    `floodgate shipment show` lists its lines.
    """
    _repack(lambda fulfilment: fulfilment.repacking.split(shipment_id, _parse_units(line), get_actor()))


@app.command()
def merge(
    shipment_ids: Annotated[list[UUID], typer.Argument(metavar="ID", help="at least two shipments")],
) -> None:
    """Move the units of other shipments into the first one.

    They must be of one order, from one warehouse to one address, and without a booking.
    """

    async def work(fulfilment: Fulfilment) -> list[UUID]:
        return [await fulfilment.repacking.merge(shipment_ids, get_actor())]

    _repack(work)


@app.command()
def redirect(
    shipment_id: ShipmentId,
    address: Annotated[
        typer.FileBinaryRead,
        typer.Option(metavar="FILE.json", help="JSON of an address as in an order; - reads standard input"),
    ],
    reason: ReasonOption,
) -> None:
    """Change the address of a shipment that is not handed over.

    A carrier is chosen again; a booking is cancelled and made again. The file is like {"name": "Li Si",
    "phone": "139 0000 0000", "country": "CN", "province": "Jiangsu", "city": "Suzhou", "line": "Renmin Road 8"};
    district and postcode are optional.
    """

    async def work(fulfilment: Fulfilment) -> ShipmentDetails:
        content = address.read(_MAX_ADDRESS_BYTES + 1)
        return await fulfilment.redirect(shipment_id, _parse_address(content), _parse_reason(reason), get_actor())

    _change(work)


@app.command("set-appointment")
def set_appointment(
    shipment_id: ShipmentId,
    from_: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%H:%M"], metavar="HH:MM", help="begin, in the warehouses' time zone"),
    ] = None,
    to: Annotated[datetime | None, typer.Option(formats=["%H:%M"], metavar="HH:MM", help="end of the window")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="LAT,LON", help="coordinates of the address, such as 30.279,120.026")
    ] = None,
) -> None:
    """Set the delivery window and the coordinates for routes of our own vehicles.

    A value that is left out is removed.
    """

    async def work(fulfilment: Fulfilment) -> ShipmentDetails:
        latitude, longitude = _parse_coordinates(at)
        window = {"deliver_from": from_ and from_.time(), "deliver_to": to and to.time()}
        appointment = parse_argument(
            {**window, "latitude": latitude, "longitude": longitude}, Appointment, f"--at {at}: there is no such place"
        )
        return await fulfilment.set_appointment(shipment_id, appointment, get_actor())

    _change(work)


def _change(step: Callable[[Fulfilment], Awaitable[ShipmentDetails]]) -> None:
    """Run one change of a shipment and print the state that results."""

    async def work() -> ShipmentDetails:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await step(fulfilment)

    details = run_change(work())
    print_line(_summarise(details.shipment, details.job))


def _repack(step: Callable[[Fulfilment], Awaitable[Sequence[UUID]]]) -> None:
    """Run a change of contents and print the state of the shipments whose ids it returns."""

    async def work() -> list[ShipmentDetails]:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return [await fulfilment.get(id_) for id_ in await step(fulfilment)]

    for details in run_change(work()):
        print_line(_summarise(details.shipment, details.job))


def _summarise(shipment: Shipment, job: ShipmentJob | None) -> str:
    """Return a shipment's state in one sentence."""
    parts = [
        f"{shipment.shipment_id}: shipment {shipment.parcel_no} of order {shipment.order_id} "
        f"is {format_status(shipment.status)}"
    ]
    if shipment.carrier is not None:
        parts.append(f"goes with {shipment.carrier}" + (f" as {shipment.tracking_no}" if shipment.tracking_no else ""))
    if shipment.packed_at is not None:
        parts.append("is packed")
    if shipment.held_reason is not None:
        parts.append(f"is on hold: {shipment.held_reason}")
    if job is not None and job.parked:
        parts.append(f"is parked: {job.last_error}")
    elif shipment.after_cancel is not None:
        parts.append("waits for the carrier to confirm the cancellation")
    elif job is not None and job.kind == "shipment.book":
        parts.append("waits for a fulfilment worker to book it")
    if shipment.resolution is not None:
        parts.append(f"is resolved: {shipment.resolution}")
    return ", ".join(parts)


def format_status(status: ShipmentStatus) -> str:
    """Return a status as plain words."""
    return status.replace("_", " ")


# Arguments.


def parse_warehouse_id(text: str) -> str:
    """Check a warehouse's id. Raises `Invalid`."""
    return parse_argument(
        text, WarehouseId, "--warehouse: give a warehouse's id, such as hz-1; `floodgate warehouse show` lists them"
    )


def _parse_reason(text: str) -> str:
    return parse_argument(text, Reason, "--reason: give 1 to 200 characters, on one line, with a letter or digit")


def _parse_units(options: Sequence[str]) -> dict[int, int]:
    """Return units by order line. Raises `Invalid`."""
    units: dict[int, int] = {}
    for option in options:
        match = _UNITS.fullmatch(option)
        if match is None:
            raise Invalid(f"--line {option}: give it as LINE=UNITS, such as 0=2")
        if int(match[1]) in units:
            raise Invalid(f"--line {option}: line {match[1]} is named twice; give each line once")
        units[int(match[1])] = int(match[2])
    return units


def _parse_address(content: bytes) -> Address:
    try:
        if len(content) > _MAX_ADDRESS_BYTES:
            raise Invalid(f"it is larger than {_MAX_ADDRESS_BYTES} bytes")
        return msgspec.json.decode(decode_text(content), type=Address)
    except (Invalid, msgspec.DecodeError, UnicodeError) as error:
        raise Invalid(f"--address: {error}") from None


def _parse_coordinates(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    try:
        latitude, longitude = map(float, text.split(","))
    except ValueError:
        raise Invalid(f"--at {text}: give latitude and longitude, such as 30.279,120.026") from None
    return latitude, longitude
