"""Staff operations of a warehouse on returns: receipts, inspections, surplus, units sent back."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from aiohttp import web

from commerce.aftersales.model import CaseSummary
from commerce.aftersales.receipt_model import (
    InspectionInput,
    MatchInput,
    ReceiptInput,
    ReceiptResult,
    ReturnedCase,
    SendBackInput,
    SurplusInstruction,
)
from commerce.kernel.paging import Page
from commerce.return_receipts.model import Receipt, SendBack, Surplus
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.endpoints.return_shipments import WAREHOUSE
from gateway.endpoints.returns import CASE
from gateway.operations import Call, Operation, Parameter, json_response

_RECEIPT = Parameter(name="receipt_id", location="path", type=UUID, description="the receipt's id")
_SURPLUS = Parameter(name="surplus_id", location="path", type=UUID, description="the surplus's id")
_SEND_BACK = Parameter(name="send_back_id", location="path", type=UUID, description="the id of the units")


async def show_returned_case(call: Call) -> web.Response:
    """Read a case with its return shipments, receipts, and units to be sent back."""
    return json_response(await call.services.returns.shipments.get(call.parameters["case_id"]))


async def receive_return(call: Call) -> web.Response:
    """Receive units at a warehouse, by case or by tracking number, in as many parts as they come.

    Units that the case does not expect are kept as surplus, and a receipt of no case, or of one that has ended, is
    matched later: `unmatched_because` says why.
    """
    return json_response(await call.services.returns.receipts.receive(call.body, call.staff_actor), 201)


async def list_unmatched_receipts(call: Call) -> web.Response:
    """List receipts without a case that nobody has dealt with, oldest first."""
    warehouse, after = call.parameters["warehouse"], call.parameters["cursor"]
    return json_response(await call.services.returns.shipments.list_unmatched(warehouse, after, page_size(call)))


async def match_receipt(call: Call) -> web.Response:
    """Count the units of a receipt without a case as received by one, by SKU or as `lines` say."""
    receipt_id = call.parameters["receipt_id"]
    return json_response(await call.services.returns.receipts.match(receipt_id, call.body, call.staff_actor))


async def inspect_return(call: Call) -> web.Response:
    """Record results of an inspection, line by line. They may be corrected until the case is resolved.

    Once all received units are inspected, so is the case. Its resolution moves them: resellable ones to stock,
    damaged ones off it, rejected ones back to the customer.
    """
    case_id = call.parameters["case_id"]
    return json_response(await call.services.returns.inspections.inspect(case_id, call.body, call.staff_actor))


async def list_surplus(call: Call) -> web.Response:
    """List surplus that nobody has decided on, oldest first."""
    return json_response(await call.services.returns.shipments.list_surplus(call.parameters["cursor"], page_size(call)))


async def decide_surplus(call: Call) -> web.Response:
    """Decide on surplus: send it back, keep it, or count it as received by another case."""
    surplus_id = call.parameters["surplus_id"]
    return json_response(await call.services.returns.receipts.decide(surplus_id, call.body, call.staff_actor))


async def list_send_backs(call: Call) -> web.Response:
    """List units that are to be sent back to their customers, oldest first."""
    shipments = call.services.returns.shipments
    return json_response(await shipments.list_send_backs(call.parameters["cursor"], page_size(call)))


async def end_send_back(call: Call) -> web.Response:
    """Record that units went to the customer again, by carrier or by hand. A repeat changes nothing."""
    send_back_id = call.parameters["send_back_id"]
    return json_response(await call.services.returns.receipts.end_send_back(send_back_id, call.body, call.staff_actor))


_RECEIPTS_PATH, _SURPLUS_PATH = "/v1/admin/return-receipts", "/v1/admin/return-surplus"
_SEND_BACKS_PATH = "/v1/admin/send-backs"
_staff = partial(Operation, tag="staff: returns", access="warehouse", also_for=("support_read",))
_list = partial(_staff, method="GET", problems=(503,))
_post = partial(Operation, tag="staff: returns", access="warehouse", method="POST", is_one_transaction=True)
_change = partial(_post, problems=(404, 409, 503))

ADMIN = [
    _staff(
        method="GET",
        path="/v1/admin/cases/{case_id}/return",
        handler=show_returned_case,
        summary="Show what came back for a case",
        answers={200: ("the case", ReturnedCase)},
        problems=(404, 503),
        parameters=(CASE,),
    ),
    _change(
        path=_RECEIPTS_PATH,
        handler=receive_return,
        summary="Receive a return",
        answers={201: ("the receipt", ReceiptResult)},
        body=ReceiptInput,
    ),
    _list(
        path=_RECEIPTS_PATH,
        handler=list_unmatched_receipts,
        summary="List receipts without a case",
        answers={200: ("a page", Page[Receipt])},
        parameters=(cursor_parameter(UUID), LIMIT, WAREHOUSE),
    ),
    _change(
        path=f"{_RECEIPTS_PATH}/{{receipt_id}}/match",
        handler=match_receipt,
        summary="Match a receipt with a case",
        answers={200: ("the case's receipt", ReceiptResult)},
        parameters=(_RECEIPT,),
        body=MatchInput,
    ),
    _change(
        path="/v1/admin/cases/{case_id}/inspect",
        handler=inspect_return,
        summary="Inspect a return",
        answers={200: ("the case", CaseSummary)},
        parameters=(CASE,),
        body=InspectionInput,
    ),
    _list(
        path=_SURPLUS_PATH,
        handler=list_surplus,
        summary="List surplus of returns",
        answers={200: ("a page", Page[Surplus])},
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _change(
        path=f"{_SURPLUS_PATH}/{{surplus_id}}/decide",
        handler=decide_surplus,
        summary="Decide on surplus",
        answers={200: ("the surplus", Surplus)},
        parameters=(_SURPLUS,),
        body=SurplusInstruction,
    ),
    _list(
        path=_SEND_BACKS_PATH,
        handler=list_send_backs,
        summary="List units to send back",
        answers={200: ("a page", Page[SendBack])},
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _change(
        path=f"{_SEND_BACKS_PATH}/{{send_back_id}}/end",
        handler=end_send_back,
        summary="Record that units were sent back",
        answers={200: ("the units", SendBack)},
        parameters=(_SEND_BACK,),
        body=SendBackInput,
    ),
]
