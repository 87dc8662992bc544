"""The shipping desk: what to pack now, labels and lists, and what is done with a parcel. On the admin port."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.paging import Page
from commerce.rates.model import CarrierChoice
from commerce.shipping.model import (
    Appointment,
    MergeInput,
    OrderShipments,
    OutcomeInput,
    PackedInput,
    ReasonInput,
    RedirectInput,
    ShipmentDetails,
    ShipmentStatus,
    SplitInput,
    UnplannedOrder,
    WarehouseId,
    Wave,
    WaveInput,
    WorklistItem,
    WorklistName,
)
from gateway.endpoints.catalog import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_PARCEL = Parameter("shipment_id", "path", UUID, "the parcel's id")
_ORDER = Parameter("order_id", "path", UUID, "the order's id")
_WAVE = Parameter("wave_id", "path", UUID, "the wave's id")
_LIST = Parameter("list", "query", WorklistName, "which parcels; left out: those to pack")
_WAREHOUSE = Parameter("warehouse", "query", WarehouseId, "of this warehouse only")


class UnplannedOrders(msgspec.Struct, frozen=True):
    """Orders that cannot be made into parcels, oldest first."""

    items: list[UnplannedOrder]


class DeskCounts(msgspec.Struct, frozen=True):
    """How long each list of the desk is."""

    to_pack: int
    parked: int
    on_hold: int
    overdue: int
    stalled: int
    no_first_scan: int
    undelivered: int
    anomalies: int
    unplanned: int


class Parcels(msgspec.Struct, frozen=True):
    """Parcels that came of it."""

    shipments: list[UUID]


def _actor(call: Call) -> str:
    return f"staff {call.identity.subject}"


async def list_parcels(call: Call) -> web.Response:
    """Parcels of one of the desk's lists, oldest first, each with why it is there."""
    which: WorklistName = call.parameters["list"] or "to_pack"
    after, warehouse = call.parameters["cursor"], call.parameters["warehouse"]
    return json_response(await call.services.fulfilment.listed(which, warehouse, after, page_size(call)))


async def count_parcels(call: Call) -> web.Response:
    """How long each of the desk's lists is."""
    counts = await call.services.fulfilment.counts()
    return json_response(DeskCounts(**{name: int(counts[name]) for name in DeskCounts.__struct_fields__}))


async def show_parcel(call: Call) -> web.Response:
    """A parcel with all that is known to have happened to it."""
    return json_response(await call.services.fulfilment.show(call.parameters["shipment_id"]))


async def show_order_parcels(call: Call) -> web.Response:
    """Any order's parcels, as its customer sees them."""
    return json_response(await call.services.shipping.show(call.parameters["order_id"], None))


async def explain_parcel(call: Call) -> web.Response:
    """How the carrier of a parcel was chosen: every carrier, and why not."""
    return json_response(await call.services.rates.explain(call.parameters["shipment_id"]))


async def pack_parcel(call: Call) -> web.Response:
    """It is packed. With the carrier's number where the desk books by itself; again changes nothing."""
    packed: PackedInput = call.body
    return json_response(
        await call.services.fulfilment.pack(call.parameters["shipment_id"], packed.tracking_no, _actor(call))
    )


async def hold_parcel(call: Call) -> web.Response:
    """Nothing is done with it before it is let go."""
    id_, because = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.hold(id_, because, _actor(call)))


async def let_parcel_go(call: Call) -> web.Response:
    """What was held goes on."""
    return json_response(await call.services.fulfilment.resume(call.parameters["shipment_id"], _actor(call)))


async def retry_parcel(call: Call) -> web.Response:
    """Take up what was given up, after what stood in its way was mended."""
    return json_response(await call.services.fulfilment.retry(call.parameters["shipment_id"], _actor(call)))


async def cancel_parcel(call: Call) -> web.Response:
    """It is not sent. Where a carrier is booked, the booking is cancelled first; it may be too late for that."""
    id_, because = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.cancel(id_, because, _actor(call)))


async def redirect_parcel(call: Call) -> web.Response:
    """Another address, before it is handed over. It is rated anew; a booking is cancelled and made again."""
    id_, wanted = call.parameters["shipment_id"], call.body
    return json_response(await call.services.fulfilment.redirect(id_, wanted.address, wanted.reason, _actor(call)))


async def appoint_parcel(call: Call) -> web.Response:
    """When the customer is there, in the shop's time, and where that is; for the planning of routes."""
    return json_response(
        await call.services.fulfilment.set_appointment(call.parameters["shipment_id"], call.body, _actor(call))
    )


async def end_parcel(call: Call) -> web.Response:
    """How it ended, where its carrier's news do not say so: it arrived, is lost or came back."""
    id_, told = call.parameters["shipment_id"], call.body
    return json_response(
        await call.services.fulfilment.set_outcome(id_, ShipmentStatus(told.state), told.reason, _actor(call))
    )


async def settle_parcel(call: Call) -> web.Response:
    """What went wrong with it was dealt with: it leaves the lists of what failed or is odd."""
    id_, because = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.resolve(id_, because, _actor(call)))


async def split_parcel(call: Call) -> web.Response:
    """Take units, by line of the order, out of a parcel that nobody is booked for, into one of their own."""
    id_, part = call.parameters["shipment_id"], call.body.lines
    return json_response(Parcels(await call.services.fulfilment.repacking.split(id_, part, _actor(call))))


async def merge_parcels(call: Call) -> web.Response:
    """Put others of its order, from the same warehouse to the same address, into this parcel."""
    together = [call.parameters["shipment_id"], *call.body.shipments]
    return json_response(Parcels([await call.services.fulfilment.repacking.merge(together, _actor(call))]))


async def reship_parcel(call: Call) -> web.Response:
    """Send once more what was lost, came back or was cancelled."""
    id_, because = call.parameters["shipment_id"], call.body.reason
    return json_response(Parcels([await call.services.fulfilment.repacking.reship(id_, because, _actor(call))]))


async def list_unplanned(call: Call) -> web.Response:
    """Orders that cannot be made into parcels as things are, with what is to be done."""
    return json_response(UnplannedOrders(await call.services.fulfilment.unplanned()))


async def retry_order(call: Call) -> web.Response:
    """Take up an order that could not be made into parcels."""
    await call.services.fulfilment.retry_order(call.parameters["order_id"])
    return web.Response(status=204)


async def make_wave(call: Call) -> web.Response:
    """Gather parcels that are to be packed into one walk through the warehouse."""
    wanted: WaveInput = call.body
    return json_response(
        await call.services.fulfilment.create_wave(wanted.warehouse_id, wanted.max_shipments, _actor(call)), status=201
    )


async def show_wave(call: Call) -> web.Response:
    """A wave: what is to be fetched, shelf by shelf, and for which of its parcels."""
    return json_response(await call.services.fulfilment.wave(call.parameters["wave_id"]))


async def print_label(call: Call) -> web.Response:
    """A parcel's label as PDF, as often as one likes; once a carrier is booked."""
    return _pdf(await call.services.printing.label(call.parameters["shipment_id"]))


async def print_packing_list(call: Call) -> web.Response:
    """What is in a parcel, as PDF."""
    return _pdf(await call.services.printing.packing_list(call.parameters["shipment_id"]))


async def print_pick_list(call: Call) -> web.Response:
    """What is to be fetched for a wave, as PDF."""
    return _pdf(await call.services.printing.pick_list(call.parameters["wave_id"]))


async def print_wave_labels(call: Call) -> web.Response:
    """The labels of all parcels of a wave that are booked, as one PDF."""
    return _pdf(await call.services.printing.labels(call.parameters["wave_id"]))


def _pdf(content: bytes) -> web.Response:
    return web.Response(body=content, content_type="application/pdf")


def _operation(method: str, path: str, handler: Any, summary: str, answer: Any, **more: Any) -> Operation:
    answers = {200: ("done", answer)} if answer is not None else {204: ("done", None)}
    given: dict[str, Any] = {"answers": answers, "problems": (404, 409, 503), "parameters": (_PARCEL,), **more}
    return Operation(
        method=method,  # type: ignore[arg-type]
        path=f"/v1/admin{path}",
        handler=handler,
        summary=summary,
        tag="staff: shipping desk",
        access="warehouse",
        **given,
    )


_ONE, _OF_WAVE, _READ = "/shipments/{shipment_id}", "/waves/{wave_id}", (404, 503)
_PDF: dict[str, Any] = {"answers": {200: ("a PDF", None)}, "content_type": "application/pdf"}
_lists = (cursor_parameter(UUID), LIMIT, _LIST, _WAREHOUSE)
ADMIN = [
    _operation(
        "GET", "/shipments", list_parcels, "A list", Page[WorklistItem], problems=(503,), parameters=_lists
    ),
    _operation("GET", "/shipments/counts", count_parcels, "Counts", DeskCounts, problems=(503,), parameters=()),
    _operation("GET", _ONE, show_parcel, "One parcel", ShipmentDetails, problems=_READ),
    _operation("GET", f"{_ONE}/choice", explain_parcel, "Explain the carrier", CarrierChoice, problems=_READ),
    _operation("GET", f"{_ONE}/label", print_label, "Label", None, **_PDF),
    _operation("GET", f"{_ONE}/packing-list", print_packing_list, "Packing list", None, problems=_READ, **_PDF),
    _operation("POST", f"{_ONE}/packed", pack_parcel, "Packed", ShipmentDetails, body=PackedInput),
    _operation("POST", f"{_ONE}/hold", hold_parcel, "Hold", ShipmentDetails, body=ReasonInput),
    _operation("POST", f"{_ONE}/let-go", let_parcel_go, "Let go", ShipmentDetails),
    _operation("POST", f"{_ONE}/retry", retry_parcel, "Try again", ShipmentDetails),
    _operation("POST", f"{_ONE}/cancel", cancel_parcel, "Cancel", ShipmentDetails, body=ReasonInput),
    _operation("POST", f"{_ONE}/address", redirect_parcel, "Another address", ShipmentDetails, body=RedirectInput),
    _operation("POST", f"{_ONE}/appointment", appoint_parcel, "Appointment", ShipmentDetails, body=Appointment),
    _operation("POST", f"{_ONE}/told", end_parcel, "Told", ShipmentDetails, body=OutcomeInput),
    _operation("POST", f"{_ONE}/settle", settle_parcel, "Settle", ShipmentDetails, body=ReasonInput),
    _operation("POST", f"{_ONE}/split", split_parcel, "Split", Parcels, body=SplitInput),
    _operation("POST", f"{_ONE}/reship", reship_parcel, "Send once more", Parcels, body=ReasonInput),
    _operation("POST", f"{_ONE}/merge", merge_parcels, "Merge", Parcels, body=MergeInput),
    _operation(
        "GET", "/orders/{order_id}/shipments", show_order_parcels, "Parcels", OrderShipments, problems=_READ,
        parameters=(_ORDER,),
    ),
    _operation("GET", "/unplanned", list_unplanned, "Unplanned", UnplannedOrders, problems=(503,), parameters=()),
    _operation("POST", "/unplanned/{order_id}/retry", retry_order, "Plan again", None, parameters=(_ORDER,)),
    _operation(
        "POST", "/waves", make_wave, "Make a wave", Wave, body=WaveInput, parameters=(),
        answers={201: ("the wave", Wave)},
    ),
    _operation("GET", _OF_WAVE, show_wave, "A wave", Wave, problems=_READ, parameters=(_WAVE,)),
    _operation(
        "GET", f"{_OF_WAVE}/pick-list", print_pick_list, "Pick list", None, parameters=(_WAVE,), problems=_READ, **_PDF
    ),
    _operation("GET", f"{_OF_WAVE}/labels", print_wave_labels, "Labels", None, parameters=(_WAVE,), **_PDF),
]  # fmt: skip
