"""Staff operations of the warehouse: worklists, packing, printing, waves and changes of shipments."""

from __future__ import annotations

from functools import partial
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
from gateway.endpoints.parameters import LIMIT, ORDER, cursor_parameter, page_size
from gateway.operations import PDF, Call, Operation, Parameter, json_response, pdf_response

_SHIPMENT = Parameter(name="shipment_id", location="path", type=UUID, description="the shipment's id")
_WAVE = Parameter(name="wave_id", location="path", type=UUID, description="the wave's id")
_WORKLIST = Parameter(
    name="worklist", location="query", type=WorklistName, description="the worklist; `to_pack` when left out"
)
_WAREHOUSE = Parameter(
    name="warehouse", location="query", type=WarehouseId, description="only shipments of this warehouse"
)


class UnplannedOrders(msgspec.Struct, frozen=True):
    """Orders that cannot be planned into shipments, oldest first."""

    items: list[UnplannedOrder]


class WorklistCounts(msgspec.Struct, frozen=True):
    """Number of shipments on each worklist, and of unplanned orders."""

    to_pack: int
    parked: int
    on_hold: int
    overdue: int
    stalled: int
    no_first_scan: int
    undelivered: int
    anomalies: int
    unplanned: int


class ShipmentIds(msgspec.Struct, frozen=True):
    """Shipments that resulted from a request."""

    shipments: list[UUID]


async def list_worklist(call: Call) -> web.Response:
    """List the shipments of a worklist, oldest first, each with the reason why it is there."""
    worklist: WorklistName = call.parameters["worklist"] or "to_pack"
    after, warehouse_id = call.parameters["cursor"], call.parameters["warehouse"]
    return json_response(await call.services.fulfilment.list_worklist(worklist, warehouse_id, after, page_size(call)))


async def count_worklists(call: Call) -> web.Response:
    """Count the shipments on each worklist, and the unplanned orders."""
    counts = await call.services.fulfilment.count_worklists()
    return json_response(WorklistCounts(**counts))


async def show_shipment(call: Call) -> web.Response:
    """Read a shipment with its lines and all its events."""
    return json_response(await call.services.fulfilment.get(call.parameters["shipment_id"]))


async def show_order_shipments(call: Call) -> web.Response:
    """List any order's shipments, as its customer sees them."""
    return json_response(await call.services.shipping.get_order_shipments(call.parameters["order_id"], None))


async def explain_carrier_choice(call: Call) -> web.Response:
    """Explain how a shipment's carrier was chosen: every carrier of the rate table, with the reason."""
    return json_response(await call.services.fulfilment.explain_carrier_choice(call.parameters["shipment_id"]))


async def pack_shipment(call: Call) -> web.Response:
    """Record that a shipment is packed. A repeat changes nothing.

    Send `tracking_no` where staff book with the carrier themselves.
    """
    packed: PackedInput = call.body
    return json_response(
        await call.services.fulfilment.pack(call.parameters["shipment_id"], packed.tracking_no, call.staff_actor)
    )


async def hold_shipment(call: Call) -> web.Response:
    """Hold a shipment: nothing is done with it until it is resumed."""
    shipment_id, reason = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.hold(shipment_id, reason, call.staff_actor))


async def resume_shipment(call: Call) -> web.Response:
    """Resume a shipment that was held."""
    return json_response(await call.services.fulfilment.resume(call.parameters["shipment_id"], call.staff_actor))


async def cancel_shipment(call: Call) -> web.Response:
    """Cancel a shipment. A carrier's booking is cancelled first, and it may be too late for that."""
    shipment_id, reason = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.cancel(shipment_id, reason, call.staff_actor))


async def redirect_shipment(call: Call) -> web.Response:
    """Change the address before handover.

    The carrier is chosen again, and a booking is cancelled and replaced.
    """
    shipment_id, redirect = call.parameters["shipment_id"], call.body
    return json_response(
        await call.services.fulfilment.redirect(shipment_id, redirect.address, redirect.reason, call.staff_actor)
    )


async def set_appointment(call: Call) -> web.Response:
    """Set the delivery window in the warehouses' time zone, and the coordinates, for route planning."""
    return json_response(
        await call.services.fulfilment.set_appointment(call.parameters["shipment_id"], call.body, call.staff_actor)
    )


async def set_shipment_outcome(call: Call) -> web.Response:
    """Set the final status where the carrier reports none: delivered, lost or returned to sender."""
    shipment_id, outcome = call.parameters["shipment_id"], call.body
    return json_response(
        await call.services.fulfilment.set_outcome(
            shipment_id, ShipmentStatus(outcome.status), outcome.reason, call.staff_actor
        )
    )


async def resolve_shipment(call: Call) -> web.Response:
    """Record that a problem was dealt with.

    The shipment leaves the worklists `undelivered` and `anomalies`.
    """
    shipment_id, reason = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.fulfilment.resolve(shipment_id, reason, call.staff_actor))


async def split_shipment(call: Call) -> web.Response:
    """Move units, by line of the order, from a shipment without a booking into a new shipment."""
    shipment_id, lines = call.parameters["shipment_id"], call.body.lines
    return json_response(
        ShipmentIds(await call.services.fulfilment.repacking.split(shipment_id, lines, call.staff_actor))
    )


async def merge_shipments(call: Call) -> web.Response:
    """Merge other shipments of the order, from the same warehouse to the same address, into this one."""
    shipment_ids = [call.parameters["shipment_id"], *call.body.shipments]
    return json_response(ShipmentIds([await call.services.fulfilment.repacking.merge(shipment_ids, call.staff_actor)]))


async def reship_shipment(call: Call) -> web.Response:
    """Send the contents of a lost, returned or cancelled shipment again, in a new shipment."""
    shipment_id, reason = call.parameters["shipment_id"], call.body.reason
    return json_response(
        ShipmentIds([await call.services.fulfilment.repacking.reship(shipment_id, reason, call.staff_actor)])
    )


async def list_unplanned_orders(call: Call) -> web.Response:
    """List orders that cannot be planned into shipments, with the reason and what to do."""
    return json_response(UnplannedOrders(await call.services.fulfilment.list_unplanned_orders()))


async def replan_order(call: Call) -> web.Response:
    """Plan an order that was stopped for a refund which has failed since.

    An order that cannot be planned has a parked job: retry that.
    """
    await call.services.fulfilment.replan(call.parameters["order_id"])
    return web.Response(status=204)


async def create_wave(call: Call) -> web.Response:
    """Gather shipments that are to be packed into one walk through the warehouse."""
    wave: WaveInput = call.body
    return json_response(
        await call.services.fulfilment.create_wave(wave.warehouse_id, wave.max_shipments, call.staff_actor), status=201
    )


async def show_wave(call: Call) -> web.Response:
    """Read a wave: units to pick, shelf by shelf, and the shipments that they are for."""
    return json_response(await call.services.fulfilment.get_wave(call.parameters["wave_id"]))


async def print_label(call: Call) -> web.Response:
    """Print a shipment's label as PDF, once a carrier is booked; repeatable."""
    return pdf_response(await call.services.printing.print_label(call.parameters["shipment_id"]))


async def print_packing_list(call: Call) -> web.Response:
    """Print the contents of a shipment as PDF."""
    return pdf_response(await call.services.printing.print_packing_list(call.parameters["shipment_id"]))


async def print_pick_list(call: Call) -> web.Response:
    """Print the units to pick for a wave as PDF."""
    return pdf_response(await call.services.printing.print_pick_list(call.parameters["wave_id"]))


async def print_wave_labels(call: Call) -> web.Response:
    """Print the labels of all booked shipments of a wave as one PDF."""
    return pdf_response(await call.services.printing.print_labels(call.parameters["wave_id"]))


_SHIPMENTS_PATH = "/v1/admin/shipments"
_SHIPMENT_PATH = f"{_SHIPMENTS_PATH}/{{shipment_id}}"
_WAVES_PATH = "/v1/admin/waves"
_WAVE_PATH = f"{_WAVES_PATH}/{{wave_id}}"
_SHIPMENT_ANSWER = {200: ("the shipment", ShipmentDetails)}
_IDS_ANSWER = {200: ("the resulting shipments", ShipmentIds)}
_WRITE_PROBLEMS, _READ_PROBLEMS, _LIST_PROBLEMS = (404, 409, 503), (404, 503), (503,)
_operation = partial(Operation, tag="staff: fulfilment", access="warehouse")
_get = partial(_operation, method="GET", also_for=("support_read",))  # who answer "where is my shipment?"
_pdf = partial(_get, answers={200: ("a PDF", None)}, content_type=PDF, also_for=())
_post = partial(_operation, method="POST", problems=_WRITE_PROBLEMS, is_one_transaction=True)
_change = partial(_post, parameters=(_SHIPMENT,))

# One line per request part keeps the table readable: path, handler, summary; then what differs from the defaults.
# fmt: off
ADMIN = [
    _get(
        path=_SHIPMENTS_PATH, handler=list_worklist, summary="List a worklist",
        answers={200: ("a page", Page[WorklistItem])}, problems=_LIST_PROBLEMS,
        parameters=(cursor_parameter(UUID), LIMIT, _WORKLIST, _WAREHOUSE),
    ),
    _get(
        path="/v1/admin/worklists", handler=count_worklists, summary="Count worklists",
        answers={200: ("the counts", WorklistCounts)}, problems=_LIST_PROBLEMS,
    ),
    _get(
        path=_SHIPMENT_PATH, handler=show_shipment, summary="Show a shipment",
        answers=_SHIPMENT_ANSWER, problems=_READ_PROBLEMS, parameters=(_SHIPMENT,),
    ),
    _get(
        path=f"{_SHIPMENT_PATH}/carrier-choice", handler=explain_carrier_choice, summary="Explain the carrier choice",
        answers={200: ("the choice", CarrierChoice)}, problems=_READ_PROBLEMS, parameters=(_SHIPMENT,),
    ),
    _pdf(
        path=f"{_SHIPMENT_PATH}/label", handler=print_label, summary="Print a label",
        problems=_WRITE_PROBLEMS, parameters=(_SHIPMENT,),
    ),
    _pdf(
        path=f"{_SHIPMENT_PATH}/packing-list", handler=print_packing_list, summary="Print a packing list",
        problems=_READ_PROBLEMS, parameters=(_SHIPMENT,),
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/pack", handler=pack_shipment, summary="Pack a shipment",
        answers=_SHIPMENT_ANSWER, body=PackedInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/hold", handler=hold_shipment, summary="Hold a shipment",
        answers=_SHIPMENT_ANSWER, body=ReasonInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/resume", handler=resume_shipment, summary="Resume a shipment",
        answers=_SHIPMENT_ANSWER,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/cancel", handler=cancel_shipment, summary="Cancel a shipment",
        answers=_SHIPMENT_ANSWER, body=ReasonInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/redirect", handler=redirect_shipment, summary="Redirect a shipment",
        answers=_SHIPMENT_ANSWER, body=RedirectInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/appointment", handler=set_appointment, summary="Set an appointment",
        answers=_SHIPMENT_ANSWER, body=Appointment,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/outcome", handler=set_shipment_outcome, summary="Set a shipment's outcome",
        answers=_SHIPMENT_ANSWER, body=OutcomeInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/resolve", handler=resolve_shipment, summary="Resolve a shipment's problem",
        answers=_SHIPMENT_ANSWER, body=ReasonInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/split", handler=split_shipment, summary="Split a shipment",
        answers=_IDS_ANSWER, body=SplitInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/reship", handler=reship_shipment, summary="Reship a shipment",
        answers=_IDS_ANSWER, body=ReasonInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/merge", handler=merge_shipments, summary="Merge shipments",
        answers=_IDS_ANSWER, body=MergeInput,
    ),
    _get(
        path="/v1/admin/orders/{order_id}/shipments", handler=show_order_shipments,
        summary="List any order's shipments", answers={200: ("the order's shipments", OrderShipments)},
        problems=_READ_PROBLEMS, parameters=(ORDER,),
    ),
    _get(
        path="/v1/admin/unplanned-orders", handler=list_unplanned_orders, summary="List unplanned orders",
        answers={200: ("all unplanned orders", UnplannedOrders)}, problems=_LIST_PROBLEMS,
    ),
    _post(
        path="/v1/admin/orders/{order_id}/replan", handler=replan_order,
        summary="Plan an order again", answers={204: ("it is about to be planned", None)}, parameters=(ORDER,),
    ),
    _post(
        path=_WAVES_PATH, handler=create_wave, summary="Create a wave",
        answers={201: ("the wave", Wave)}, body=WaveInput,
    ),
    _get(
        path=_WAVE_PATH, handler=show_wave, summary="Show a wave",
        answers={200: ("the wave", Wave)}, problems=_READ_PROBLEMS, parameters=(_WAVE,),
    ),
    _pdf(
        path=f"{_WAVE_PATH}/pick-list", handler=print_pick_list, summary="Print a pick list",
        problems=_READ_PROBLEMS, parameters=(_WAVE,),
    ),
    _pdf(
        path=f"{_WAVE_PATH}/labels", handler=print_wave_labels, summary="Print a wave's labels",
        problems=_WRITE_PROBLEMS, parameters=(_WAVE,),
    ),
]
# fmt: on
