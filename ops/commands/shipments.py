"""`floodgate shipment`, looking: what there is to do with parcels, and all that is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from commerce.kernel.address import Address
from commerce.kernel.money import format_money as show_money
from commerce.kernel.paging import Page
from commerce.shipping.model import (
    OrderShipments,
    Shipment,
    ShipmentDetails,
    ShipmentLineView,
    UnplannedOrder,
    WorklistItem,
    WorklistName,
)
from ops.commands import documents, shipment_actions
from ops.commands.console import out, run
from ops.commands.shipment_actions import ShipmentId, say, warehouse_id, words
from ops.services import open_cli_services, open_fulfilment

app = typer.Typer(help="Parcels: what there is to do, and doing it.", no_args_is_help=True)
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER")]
_LISTS: dict[WorklistName, str] = {
    "to_pack": "to be packed now",
    "parked": "given up until somebody mends what stopped it",
    "on_hold": "nothing is done with it before it is let go",
    "overdue": "promised for a day that is over, and not there",
    "stalled": "on the way, without news for long",
    "no_first_scan": "booked, and the carrier has not been heard of for long",
    "undelivered": "lost or sent back, and not settled",
    "anomalies": "news that nobody understands or that cannot be, and not settled",
}
_MOST = 10_000


@app.command("list")
def list_(
    which: Annotated[
        WorklistName, typer.Option("--list", help="`floodgate shipment counts` says what each is; all: every parcel")
    ] = "to_pack",
    warehouse: Annotated[str | None, typer.Option(help="of this warehouse only")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="how many at most")] = 100,
    after: Annotated[UUID | None, typer.Option(metavar="ID", help="go on after this parcel of the list")] = None,
) -> None:
    """List the parcels that are to be packed, or another list, the oldest first, each with why it is there."""

    async def work() -> Page[WorklistItem]:
        place = None if warehouse is None else warehouse_id(warehouse)
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.listed(which, place, after, limit)

    found = run(work())
    # Two ids side by side leave no room for why it is there.
    table = Table("parcel, its order", "no.", "carrier, number", "status", "weight", "promised", "why")
    for column in table.columns[:2]:
        column.no_wrap = True
    for item in found.items:
        one = item.shipment
        table.add_row(
            f"{one.shipment_id}\n{one.order_id}",
            str(one.parcel_no),
            f"{one.carrier or ''}\n{one.tracking_no or ''}",
            words(one.status),
            f"{one.weight_g:,} g",
            str(one.promised_on),
            item.reason or "",
        )
    _print(table if found.items else f"no parcel is on the list {which}")
    if found.next is not None:
        say(f"there are more: --after {found.next}")


@app.command()
def counts() -> None:
    """Say what each list is and how long, and for how long the oldest jobs have been due.

    Much more than a minute says that no shipment driver is at work, or not enough of them.
    """

    async def work() -> dict[str, float]:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.counts()

    found = run(work())
    table = Table("list", "parcels", "what it is")
    for name, meaning in _LISTS.items():
        table.add_row(name, str(int(found[name])), meaning)
    _print(table)
    say(f"orders that cannot be made into parcels: {int(found['unplanned'])} (floodgate shipment unplanned)")
    for what in ("shipment", "order"):
        say(f"the oldest job of {what}s has been due for {found[f'oldest_{what}_s']:.0f} s")


@app.command()
def unplanned() -> None:
    """List the orders that cannot be made into parcels as things are, and why.

    Mend that, then `floodgate shipment retry-order ORDER`.
    """

    async def work() -> list[UnplannedOrder]:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.unplanned()

    found = run(work())
    table = Table("order", "paid (UTC)", "attempts", "why")
    table.columns[0].no_wrap = True
    for one in found:
        table.add_row(str(one.order_id), _time(one.paid_at), str(one.attempts), one.reason)
    _print(table if found else "every order that was paid is in parcels, or about to be")


@app.command("retry-order")
def retry_order(order_id: OrderId) -> None:
    """Take up an order that could not be made into parcels, after what stood in its way was mended."""

    async def work() -> None:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            await desk.retry_order(order_id)

    run(work())
    say(f"{order_id} is due again")


@app.command()
def show(shipment_id: ShipmentId) -> None:
    """Show all that is known of a parcel. `floodgate rates explain ID` says why it got its carrier."""

    async def work() -> ShipmentDetails:
        async with open_cli_services() as shop, open_fulfilment(shop) as desk:
            return await desk.show(shipment_id)

    found = run(work())
    about = Table(show_header=False)
    for name, value in _about(found.shipment):
        if value not in (None, ""):
            about.add_row(name, str(value))
    _print(about)
    lines = Table("line", "SKU", "units")
    for line in found.lines:
        lines.add_row(str(line.line_no), line.sku, str(line.quantity))
    _print(lines)
    events = Table("at (UTC)", "from", "status", "place", "what")
    for event in found.events:
        status = words(event.status) if event.status else ""
        events.add_row(_time(event.at), event.source, status, event.place or "", event.text)
    _print(events if found.events else "nothing has happened to it yet")


@app.command()
def of(order_id: OrderId) -> None:
    """Show the parcels of an order, those that were cancelled too."""

    async def work() -> OrderShipments:
        async with open_cli_services() as shop:
            return await shop.shipping.show(order_id, None)

    found = run(work())
    table = Table("parcel", "no.", "carrier, number", "status", "to", "holds", "promised", "expected", "collects")
    table.columns[0].no_wrap = True
    for one in found.shipments:
        table.add_row(
            str(one.shipment_id),
            str(one.parcel_no),
            f"{one.carrier or ''}\n{one.tracking_no or ''}",
            words(one.status),
            f"address {one.ship_to}",
            _held(one.lines),
            str(one.promised_on),
            str(one.expected_on or ""),
            show_money(one.cash_to_collect.amount, one.cash_to_collect.currency) if one.cash_to_collect else "",
        )
    _print(table if found.shipments else f"order {order_id} is in no parcel yet")
    if found.unplanned_units:
        say(f"{found.unplanned_units} units of it are in no parcel")


def _about(one: Shipment) -> Sequence[tuple[str, object]]:
    """What is known of a parcel by name; what does not apply is None or empty."""
    window = f"{one.deliver_from:%H:%M} to {one.deliver_to:%H:%M}" if one.deliver_from and one.deliver_to else None
    return (
        ("parcel", one.shipment_id),
        ("order", f"{one.order_id}, parcel {one.parcel_no}, to its address {one.address_no}"),
        ("in place of", one.replaces),
        ("status", words(one.status)),
        ("held", one.held_reason),
        ("given up", (one.last_error or "it is not known why") if one.parked else None),
        ("to be done", one.task and f"{one.task}, due {_time(one.due_at)} UTC, {one.attempts} attempts"),
        ("becomes then", one.after_cancel),
        ("last error", None if one.parked else one.last_error),
        ("warehouse", one.warehouse_id),
        ("wave", one.wave_id),
        ("to", _address(one.address)),
        ("then to", one.next_address and _address(one.next_address)),
        ("customer is there", window),
        ("place", None if one.latitude is None else f"{one.latitude}, {one.longitude}"),
        ("weight, size", f"{one.weight_g:,} g, {one.length_mm} x {one.width_mm} x {one.height_mm} mm"),
        ("value", show_money(one.value_minor, one.currency)),
        ("collects", one.cod and show_money(one.cod.amount, one.cod.currency)),
        ("cash collected (UTC)", _time(one.cod_collected_at)),
        ("carrier", one.carrier),
        ("refused by", ", ".join(one.refused_by)),
        ("price", None if one.price_minor is None else show_money(one.price_minor, one.currency)),
        ("number", one.tracking_no),
        ("sort code", one.sort_code),
        ("booking", one.booking_id),
        ("promised for", one.promised_on),
        ("expected on", one.expected_on),
        ("planned (UTC)", _time(one.planned_at)),
        ("booked (UTC)", _time(one.booked_at)),
        ("packed (UTC)", one.packed_at and f"{_time(one.packed_at)} by {one.packed_by}"),
        ("handed over (UTC)", _time(one.handed_over_at)),
        ("last news (UTC)", _time(one.last_event_at)),
        ("ended (UTC)", _time(one.ended_at)),
        ("settled (UTC)", one.resolved_at and f"{_time(one.resolved_at)}: {one.resolution}"),
    )


def _address(to: Address) -> str:
    region = ", ".join(part for part in (to.line, to.district, to.city, to.province, to.postcode, to.country) if part)
    return f"{to.name}, {to.phone}, {region}"


def _held(lines: Sequence[ShipmentLineView]) -> str:
    return ", ".join(f"{line.quantity} {line.sku}" for line in lines)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _print(what: Table | str) -> None:
    """What customers and carriers wrote is not read as markup."""
    out.print(what, highlight=False, markup=False)


app.add_typer(shipment_actions.app)
app.add_typer(documents.of_shipments)
