"""Return shipments: of a customer's case, and for staff."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.aftersales.receipt_model import (
    CollectionInput,
    ReturnOutcomeInput,
    ReturnWorklistCounts,
    ShipmentWorklist,
)
from commerce.kernel.paging import Page
from commerce.return_shipments.model import ReturnShipmentDetails, ReturnShipmentView, TrackingInput
from commerce.shipping.model import ReasonInput, WarehouseId
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.endpoints.returns import CASE, RETURNS_PATH
from gateway.operations import PDF, Call, Operation, Parameter, json_response, pdf_response

_SHIPMENT = Parameter(name="return_shipment_id", location="path", type=UUID, description="the return shipment's id")
_WORKLIST = Parameter(
    name="worklist",
    location="query",
    type=ShipmentWorklist,
    description="`arrived` (and not received) when left out; `overdue`: nothing was reported of them for a week",
)
WAREHOUSE = Parameter(name="warehouse", location="query", type=WarehouseId, description="only of this warehouse")


class CaseShipments(msgspec.Struct, frozen=True):
    """The return shipments of a case, oldest first."""

    shipments: list[ReturnShipmentView]


async def list_return_shipments(call: Call) -> web.Response:
    """List the return shipments of a case, each with its events."""
    case_id, user_id = call.parameters["case_id"], call.identity.subject
    return json_response(CaseShipments(await call.services.returns.shipments.list_of_customer(case_id, user_id)))


async def set_return_tracking(call: Call) -> web.Response:
    """Enter the carrier and the tracking number with which you have sent the products of an approved case.

    Another number takes the place of the one before, until the warehouse has the shipment. A number that another
    shipment has is refused. A repeat changes nothing.
    """
    case_id, user_id = call.parameters["case_id"], call.identity.subject
    shipments = await call.services.returns.shipments.set_tracking(case_id, call.body, user_id)
    return json_response(CaseShipments(shipments))


async def print_return_label(call: Call) -> web.Response:
    """Print the label of a return shipment that the shop has booked, as PDF; repeatable."""
    return_shipment_id, user_id = call.parameters["return_shipment_id"], call.identity.subject
    return pdf_response(await call.services.returns.labels.print_label(return_shipment_id, user_id))


async def print_label_for_customer(call: Call) -> web.Response:
    """Print the label of a customer's return shipment as PDF; repeatable."""
    return pdf_response(await call.services.returns.labels.print_label(call.parameters["return_shipment_id"]))


async def collect_return(call: Call) -> web.Response:
    """Have a carrier collect the products of an approved case, by default all that have not come.

    The cheapest carrier that collects returns is booked. If there is none, `job_error` says why: the customer may send
    them with a carrier of their own.
    """
    case_id = call.parameters["case_id"]
    details = await call.services.returns.shipments.collect(case_id, call.body, call.staff_actor)
    return json_response(details, 201)


async def list_returns_to_receive(call: Call) -> web.Response:
    """List return shipments of a worklist, oldest first."""
    worklist: ShipmentWorklist = call.parameters["worklist"] or "arrived"
    warehouse, after = call.parameters["warehouse"], call.parameters["cursor"]
    shipments = call.services.returns.shipments
    return json_response(await shipments.list_worklist(worklist, warehouse, after, page_size(call)))


async def count_return_worklists(call: Call) -> web.Response:
    """Count the items of each worklist of returns."""
    return json_response(await call.services.returns.shipments.count_worklists())


async def cancel_return_shipment(call: Call) -> web.Response:
    """Cancel a return shipment that its carrier has not collected. A repeat changes nothing."""
    return_shipment_id, reason = call.parameters["return_shipment_id"], call.body.reason
    shipments = call.services.returns.shipments
    return json_response(await shipments.cancel(return_shipment_id, reason, call.staff_actor))


async def set_return_outcome(call: Call) -> web.Response:
    """Set the final status of a return shipment where its tracking reports none: delivered or lost."""
    return_shipment_id = call.parameters["return_shipment_id"]
    shipments = call.services.returns.shipments
    return json_response(await shipments.set_outcome(return_shipment_id, call.body, call.staff_actor))


_SHIPMENTS_PATH = "/v1/admin/return-shipments"
_SHIPMENT_PATH = f"{_SHIPMENTS_PATH}/{{return_shipment_id}}"
_customer = partial(Operation, tag="returns", access="customer", answers={200: ("its return shipments", CaseShipments)})
_PDF_ANSWER = {200: ("a PDF", None)}
_staff = partial(Operation, tag="staff: returns", access="warehouse", also_for=("support_answer",))
_change = partial(
    _staff,
    method="POST",
    is_one_transaction=True,
    answers={200: ("the return shipment", ReturnShipmentDetails)},
    problems=(404, 409, 503),
    parameters=(_SHIPMENT,),
)

OPERATIONS = [
    _customer(
        method="GET",
        path=f"{RETURNS_PATH}/{{case_id}}/shipments",
        handler=list_return_shipments,
        summary="List the return shipments of a case",
        problems=(404, 503),
        parameters=(CASE,),
    ),
    _customer(
        method="POST",
        path=f"{RETURNS_PATH}/{{case_id}}/tracking",
        handler=set_return_tracking,
        summary="Enter your tracking number",
        problems=(404, 409, 503),
        parameters=(CASE,),
        body=TrackingInput,
    ),
    Operation(
        tag="returns",
        access="customer",
        method="GET",
        path="/v1/return-shipments/{return_shipment_id}/label",
        handler=print_return_label,
        summary="Print the label of a return shipment",
        answers=_PDF_ANSWER,
        problems=(404, 409, 503),
        parameters=(_SHIPMENT,),
        content_type=PDF,
    ),
]
ADMIN = [
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/cases/{case_id}/shipments",
        handler=collect_return,
        summary="Have a return collected",
        answers={201: ("the new return shipment", ReturnShipmentDetails)},
        problems=(404, 409, 503),
        parameters=(CASE,),
        body=CollectionInput,
    ),
    _staff(
        method="GET",
        also_for=("support_read",),
        path=_SHIPMENTS_PATH,
        handler=list_returns_to_receive,
        summary="List return shipments",
        answers={200: ("a page", Page[ReturnShipmentDetails])},
        problems=(503,),
        parameters=(cursor_parameter(UUID), LIMIT, _WORKLIST, WAREHOUSE),
    ),
    _staff(
        method="GET",
        also_for=("support_read",),
        path="/v1/admin/return-worklists",
        handler=count_return_worklists,
        summary="Count the worklists of returns",
        answers={200: ("the counts", ReturnWorklistCounts)},
        problems=(503,),
    ),
    _staff(
        method="GET",
        path=f"{_SHIPMENT_PATH}/label",
        handler=print_label_for_customer,
        summary="Print the label of a customer's return shipment",
        answers=_PDF_ANSWER,
        problems=(404, 409, 503),
        parameters=(_SHIPMENT,),
        content_type=PDF,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/cancel",
        handler=cancel_return_shipment,
        summary="Cancel a return shipment",
        body=ReasonInput,
    ),
    _change(
        path=f"{_SHIPMENT_PATH}/outcome",
        also_for=("support",),
        handler=set_return_outcome,
        summary="Set a return shipment's outcome",
        body=ReturnOutcomeInput,
    ),
]
