"""Commands of `floodgate shipment` that show worklists and shipments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.address import Address
from commerce.kernel.money import format_money
from commerce.kernel.paging import Page
from commerce.shipping.model import (
    OrderShipments,
    Shipment,
    ShipmentDetails,
    ShipmentJob,
    ShipmentLineView,
    WorklistItem,
    WorklistName,
)
from ops.commands import documents, shipment_actions
from ops.commands.console import JsonOption, format_time, print_json, print_line, print_table, print_values, run
from ops.commands.safe_console import Table
from ops.commands.shipment_actions import ShipmentId, format_status, parse_warehouse_id
from ops.services import open_cli_services, open_fulfilment

app = typer.Typer(help="List, show and change shipments, and print their documents.", no_args_is_help=True)
_WORKLISTS: dict[WorklistName, str] = {
    "to_pack": "to be packed now",
    "parked": "no longer retried: fix the cause, then `floodgate jobs retry shipments ID`",
    "on_hold": "stopped until `floodgate shipment resume`",
    "overdue": "not delivered on the promised day",
    "stalled": "with the carrier, without tracking events for a long time",
    "no_first_scan": "booked, and not scanned by the carrier for a long time",
    "undelivered": "lost or returned, and not resolved",
    "anomalies": "tracking events that are unknown or contradict the history, not resolved",
}
_MAX_LIMIT = 10_000


@app.command("list")
def list_shipments(
    context: typer.Context,
    worklist: Annotated[
        WorklistName, typer.Option(help="`floodgate shipment worklists` explains them; all: every shipment")
    ] = "to_pack",
    order_id: Annotated[
        UUID | None, typer.Option("--order", metavar="ORDER", help="all shipments of this order, instead of a worklist")
    ] = None,
    warehouse: Annotated[str | None, typer.Option(help="only shipments from this warehouse")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_LIMIT, help="maximum number of shipments")] = 100,
    after: Annotated[UUID | None, typer.Option(metavar="ID", help="continue after this shipment of the list")] = None,
    json: JsonOption = False,
) -> None:
    """List a worklist, the oldest shipments first, each with the reason; or an order's shipments.

    Without options it lists the shipments that are to be packed.
    """
    if order_id is not None:
        for name in ("worklist", "warehouse", "limit", "after"):
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                raise typer.BadParameter(f"--order lists all shipments of an order; leave --{name} out")
        _list_order(order_id, json)
        return

    async def work() -> Page[WorklistItem]:
        warehouse_id = None if warehouse is None else parse_warehouse_id(warehouse)
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.list_worklist(worklist, warehouse_id, after, limit)

    page = run(work())
    if json:
        print_json(page)
        return
    # One column for both ids: side by side they leave no room for the reason.
    table = Table("shipment, its order", "no.", "carrier, number", "status", "weight", "promised", "reason")
    for column in table.columns[:2]:
        column.no_wrap = True
    for item in page.items:
        shipment = item.shipment
        table.add_row(
            f"{shipment.shipment_id}\n{shipment.order_id}",
            str(shipment.parcel_no),
            f"{shipment.carrier or ''}\n{shipment.tracking_no or ''}",
            format_status(shipment.status),
            f"{shipment.weight_g:,} g",
            str(shipment.promised_on),
            item.reason or "",
        )
    print_table(table, f"no shipment is on the worklist {worklist}")
    if page.next is not None:
        print_line(f"there are more: --after {page.next}")


def _list_order(order_id: UUID, json: bool) -> None:
    async def work() -> OrderShipments:
        async with open_cli_services() as shop:
            return await shop.shipping.get_order_shipments(order_id, None)

    order = run(work())
    if json:
        print_json(order)
        return
    table = Table(
        *("shipment", "no.", "carrier, number", "status", "address", "units"),
        *("promised", "expected", "cash to collect"),
    )
    table.columns[0].no_wrap = True
    for shipment in order.shipments:
        cash = shipment.cash_to_collect
        table.add_row(
            str(shipment.shipment_id),
            str(shipment.parcel_no),
            f"{shipment.carrier or ''}\n{shipment.tracking_no or ''}",
            format_status(shipment.status),
            str(shipment.ship_to),
            _format_lines(shipment.lines),
            str(shipment.promised_on),
            str(shipment.expected_on or ""),
            format_money(cash.amount, cash.currency) if cash else "",
        )
    print_table(table, f"order {order_id} has no shipment yet")
    if order.unplanned_units:
        print_line(f"{order.unplanned_units} units of it are in no shipment")


@app.command()
def worklists(json: JsonOption = False) -> None:
    """Show the length and the meaning of each worklist.

    What workers have yet to do: `floodgate jobs list`.
    """

    async def work() -> dict[str, int]:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.count_worklists()

    counts = run(work())
    if json:
        print_json(counts)
        return
    table = Table("worklist", "shipments", "meaning")
    for name, meaning in _WORKLISTS.items():
        table.add_row(name, str(counts[name]), meaning)
    print_table(table)
    print_line(f"orders that cannot be planned: {counts['unplanned']} (floodgate order unplanned)")


@app.command()
def show(shipment_id: ShipmentId, json: JsonOption = False) -> None:
    """Show a shipment with its lines and its history.

    `floodgate rates explain ID` shows the reasons for its carrier.
    """

    async def work() -> ShipmentDetails:
        async with open_cli_services() as shop, open_fulfilment(shop) as fulfilment:
            return await fulfilment.get(shipment_id)

    details = run(work())
    if json:
        print_json(details)
        return
    print_values((name, value) for name, value in _describe(details.shipment, details.job) if value not in (None, ""))
    lines = Table("line", "SKU", "units")
    for line in details.lines:
        lines.add_row(str(line.line_no), line.sku, str(line.quantity))
    print_table(lines)
    events = Table("at (UTC)", "source", "status", "place", "text")
    for event in details.events:
        status = format_status(event.status) if event.status else ""
        events.add_row(format_time(event.at), event.source, status, event.place or "", event.text)
    print_table(events, "nothing has happened to it yet")


def _describe(shipment: Shipment, job: ShipmentJob | None) -> Sequence[tuple[str, object]]:
    """Return a shipment's values with their names; a value that does not apply is None or empty."""
    window = (
        f"{shipment.deliver_from:%H:%M} to {shipment.deliver_to:%H:%M}"
        if shipment.deliver_from and shipment.deliver_to
        else None
    )
    size = f"{shipment.length_mm} x {shipment.width_mm} x {shipment.height_mm} mm"
    return (
        ("shipment", shipment.shipment_id),
        ("order", f"{shipment.order_id}, shipment {shipment.parcel_no}, to its address {shipment.address_no}"),
        ("replaces", shipment.replaces),
        ("status", format_status(shipment.status)),
        ("on hold", shipment.held_reason),
        ("parked", (job.last_error or "for an unknown reason") if job and job.parked else None),
        ("job", job and f"{job.kind}, due {format_time(job.due_at)} UTC, {job.attempts} attempts"),
        ("after cancelling", shipment.after_cancel),
        ("last error", None if job is None or job.parked else job.last_error),
        ("warehouse", shipment.warehouse_id),
        ("wave", shipment.wave_id),
        ("address", _format_address(shipment.address)),
        ("next address", shipment.next_address and _format_address(shipment.next_address)),
        ("delivery window", window),
        ("coordinates", None if shipment.latitude is None else f"{shipment.latitude}, {shipment.longitude}"),
        ("weight, size", f"{shipment.weight_g:,} g, {size}"),
        ("value", format_money(shipment.value_minor, shipment.currency)),
        ("cash to collect", shipment.cod and format_money(shipment.cod.amount, shipment.cod.currency)),
        ("cash collected (UTC)", format_time(shipment.cod_collected_at)),
        ("carrier", shipment.carrier),
        ("refused by", ", ".join(shipment.refused_by)),
        ("price", None if shipment.price_minor is None else format_money(shipment.price_minor, shipment.currency)),
        ("tracking number", shipment.tracking_no),
        ("sort code", shipment.sort_code),
        ("booking", shipment.booking_id),
        ("promised on", shipment.promised_on),
        ("expected on", shipment.expected_on),
        ("planned (UTC)", format_time(shipment.planned_at)),
        ("booked (UTC)", format_time(shipment.booked_at)),
        ("packed (UTC)", shipment.packed_at and f"{format_time(shipment.packed_at)} by {shipment.packed_by}"),
        ("handed over (UTC)", format_time(shipment.handed_over_at)),
        ("last event (UTC)", format_time(shipment.last_event_at)),
        ("ended (UTC)", format_time(shipment.ended_at)),
        ("resolved (UTC)", shipment.resolved_at and f"{format_time(shipment.resolved_at)}: {shipment.resolution}"),
    )


def _format_address(to: Address) -> str:
    region = ", ".join(part for part in (to.line, to.district, to.city, to.province, to.postcode, to.country) if part)
    return f"{to.name}, {to.phone}, {region}"


def _format_lines(lines: Sequence[ShipmentLineView]) -> str:
    return ", ".join(f"{line.quantity} {line.sku}" for line in lines)


app.add_typer(shipment_actions.app)
app.add_typer(documents.shipment_app)
