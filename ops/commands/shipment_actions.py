"""`floodgate shipment`, doing: what staff do with a parcel. What a carrier must be told of is left to the driver."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
import typer

from commerce.fulfilment.service import Fulfilment
from commerce.kernel.address import Address
from commerce.kernel.errors import Invalid
from commerce.kernel.types import Reason
from commerce.shipping.model import Appointment, Shipment, ShipmentDetails, ShipmentStatus, TrackingNo, WarehouseId
from ops.commands.console import actor, out, parse_argument, run
from ops.services import open_cli_services, open_fulfilment

app = typer.Typer()
ShipmentId = Annotated[UUID, typer.Argument(metavar="ID", help="the parcel's id")]
Because = Annotated[str, typer.Option("--reason", help="why; it is recorded, and the customer sees it")]
EndState = StrEnum("EndState", {name: name for name in ("delivered", "lost", "returned_to_sender")})  # type: ignore[misc]
_UNITS = re.compile(r"([0-9]{1,4})=([0-9]{1,7})")
_MOST_BYTES = 65_536
_NUMBER = "--number: give 4 to 64 letters, digits and dashes, as it stands on the label"


@app.command()
def packed(
    shipment_id: ShipmentId,
    number: Annotated[str | None, typer.Option(help="the carrier's, from its label, where the desk books it")] = None,
) -> None:
    """Say that a parcel is packed; again changes nothing."""

    async def work(desk: Fulfilment) -> ShipmentDetails:
        given = None if number is None else parse_argument(number, TrackingNo, _NUMBER)
        return await desk.pack(shipment_id, given, actor())

    _do(work)


@app.command()
def hold(shipment_id: ShipmentId, reason: Because) -> None:
    """Let nothing be done with a parcel that has not left, before it is let go."""
    _do(lambda desk: desk.hold(shipment_id, _why(reason), actor()))


@app.command("let-go")
def let_go(shipment_id: ShipmentId) -> None:
    """Let a parcel go on that was held; again changes nothing."""
    _do(lambda desk: desk.resume(shipment_id, actor()))


@app.command()
def cancel(shipment_id: ShipmentId, reason: Because) -> None:
    """Do not send a parcel: at once where nobody is booked, else when the carrier has said that it will not come.

    `floodgate shipment reship` sends it after all.
    """
    _do(lambda desk: desk.cancel(shipment_id, _why(reason), actor()))


@app.command()
def retry(shipment_id: ShipmentId) -> None:
    """Take up a parcel that was given up, after what stood in its way was mended. A shipment driver does the rest."""
    _do(lambda desk: desk.retry(shipment_id, actor()))


@app.command()
def told(
    shipment_id: ShipmentId,
    state: Annotated[EndState, typer.Option(help="how it ended")],
    reason: Because,
) -> None:
    """Say how a parcel ended where its carrier's news do not say so: it arrived, is lost or came back."""
    _do(lambda desk: desk.set_outcome(shipment_id, ShipmentStatus(state), _why(reason), actor()))


@app.command()
def settle(shipment_id: ShipmentId, reason: Because) -> None:
    """Say how it was dealt with what went wrong with a parcel: it leaves the lists failed and odd."""
    _do(lambda desk: desk.resolve(shipment_id, _why(reason), actor()))


@app.command()
def reship(shipment_id: ShipmentId, reason: Because) -> None:
    """Send once more what was lost, came back or was cancelled, in a new parcel. Once for each parcel."""

    async def work(desk: Fulfilment) -> list[UUID]:
        return [await desk.repacking.reship(shipment_id, _why(reason), actor())]

    _repack(work)


@app.command()
def split(
    shipment_id: ShipmentId,
    line: Annotated[
        list[str], typer.Option(metavar="LINE=UNITS", help="such as 0=2; again for another line of the order")
    ],
) -> None:
    """Take units out of a parcel that nobody is booked for, into a new one. `floodgate shipment show` has the lines."""
    _repack(lambda desk: desk.repacking.split(shipment_id, _units(line), actor()))


@app.command()
def merge(
    shipment_ids: Annotated[list[UUID], typer.Argument(metavar="ID", help="two parcels at least")],
) -> None:
    """Put parcels into the first of them, where nobody is booked, of one order, from one warehouse to one address."""

    async def work(desk: Fulfilment) -> list[UUID]:
        return [await desk.repacking.merge(shipment_ids, actor())]

    _repack(work)


@app.command()
def redirect(
    shipment_id: ShipmentId,
    address: Annotated[
        typer.FileBinaryRead,
        typer.Option(metavar="FILE.json", help="JSON of an address as in an order; - reads standard input"),
    ],
    reason: Because,
) -> None:
    """Give a parcel that is not handed over another address. It is rated anew; a booking is cancelled and made again.

    The file is like {"name": "Li Si", "phone": "139 0000 0000", "country": "CN", "province": "Jiangsu",
    "city": "Suzhou", "line": "Renmin Road 8"}; district and postcode may be there too.
    """

    async def work(desk: Fulfilment) -> ShipmentDetails:
        return await desk.redirect(shipment_id, _address(address.read(_MOST_BYTES)), _why(reason), actor())

    _do(work)


@app.command()
def appoint(
    shipment_id: ShipmentId,
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%H:%M"], metavar="HH:MM", help="in the shop's time zone")
    ] = None,
    to: Annotated[datetime | None, typer.Option(formats=["%H:%M"], metavar="HH:MM", help="in that too")] = None,
    at: Annotated[str | None, typer.Option(metavar="LAT,LON", help="where that is, such as 30.279,120.026")] = None,
) -> None:
    """Say when the customer is there, and where that is, for the routes of vans. What is left out holds no more."""

    async def work(desk: Fulfilment) -> ShipmentDetails:
        latitude, longitude = _place(at)
        window = {"deliver_from": from_ and from_.time(), "deliver_to": to and to.time()}
        wanted = parse_argument(
            {**window, "latitude": latitude, "longitude": longitude}, Appointment, f"--at {at}: there is no such place"
        )
        return await desk.set_appointment(shipment_id, wanted, actor())

    _do(work)


def _do(step: Callable[[Fulfilment], Awaitable[ShipmentDetails]]) -> None:
    """Do something with a parcel, and say how it is then."""

    async def work() -> ShipmentDetails:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await step(desk)

    say(_state(run(work()).shipment))


def _repack(step: Callable[[Fulfilment], Awaitable[Sequence[UUID]]]) -> None:
    """Change what parcels hold, and say how those are that came of it."""

    async def work() -> list[ShipmentDetails]:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return [await desk.show(id_) for id_ in await step(desk)]

    for one in run(work()):
        say(_state(one.shipment))


def _state(one: Shipment) -> str:
    said = [f"{one.shipment_id}: parcel {one.parcel_no} of order {one.order_id} is {words(one.status)}"]
    if one.carrier is not None:
        said.append(f"goes with {one.carrier}" + (f" as {one.tracking_no}" if one.tracking_no else ""))
    if one.packed_at is not None:
        said.append("is packed")
    if one.held_reason is not None:
        said.append(f"is held: {one.held_reason}")
    if one.parked:
        said.append(f"was given up: {one.last_error}")
    elif one.task == "cancel":
        said.append("waits for the carrier to say that it does not come")
    elif one.task == "book":
        said.append("waits for a shipment driver to book it")
    if one.resolution is not None:
        said.append(f"is settled: {one.resolution}")
    return ", ".join(said)


def words(status: ShipmentStatus) -> str:
    """A status as people say it."""
    return status.replace("_", " ")


def say(text: str) -> None:
    """A sentence on a line of its own. What customers and carriers wrote is not read as markup."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


# Words from the command line.


def warehouse_id(given: str) -> str:
    """Raises `Invalid`."""
    return parse_argument(
        given, WarehouseId, "--warehouse: give a warehouse's id, such as hz-1: floodgate warehouse show"
    )


def _why(reason: str) -> str:
    return parse_argument(reason, Reason, "--reason: give 1 to 200 characters, on one line")


def _units(given: Sequence[str]) -> dict[int, int]:
    """Units by line of the order."""
    found: dict[int, int] = {}
    for one in given:
        said = _UNITS.fullmatch(one)
        if said is None:
            raise Invalid(f"--line {one}: give it as LINE=UNITS, such as 0=2")
        if int(said[1]) in found:
            raise Invalid(f"--line {one}: line {said[1]} is named twice")
        found[int(said[1])] = int(said[2])
    return found


def _address(content: bytes) -> Address:
    try:
        return msgspec.json.decode(content, type=Address)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"--address: {error}") from None


def _place(at: str | None) -> tuple[float | None, float | None]:
    if at is None:
        return None, None
    try:
        latitude, longitude = map(float, at.split(","))
    except ValueError:
        raise Invalid(f"--at {at}: give latitude and longitude, such as 30.279,120.026") from None
    return latitude, longitude
