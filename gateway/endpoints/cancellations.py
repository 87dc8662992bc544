"""Cancelling orders before and after paying, whole or unit by unit, by customers and staff."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.cancellations.model import (
    Cancellation,
    CancellationPreview,
    CancelledDetails,
    CancelledOrder,
    CancelRequest,
    CustomerCancelInput,
    OpenCancellation,
    StaffCancelInput,
    UnitsToCancel,
)
from commerce.kernel.errors import Invalid
from commerce.shipping.model import ReasonInput
from gateway.decoding import IDEMPOTENCY_KEY_DESCRIPTION, IDEMPOTENCY_KEY_INVALID, IdempotencyKey
from gateway.endpoints.orders import ORDER_PATH, STORE_WAIT_S
from gateway.endpoints.parameters import ORDER
from gateway.operations import Call, Operation, Parameter, json_response

_SHIPMENT = Parameter(name="shipment_id", location="path", type=UUID, description="the shipment's id")
_ADMIN_PATH = "/v1/admin/orders/{order_id}"
_REASON = "the customer cancelled it"
_KEY = Parameter(
    name="Idempotency-Key",
    location="header",
    type=IdempotencyKey | None,
    description=f"{IDEMPOTENCY_KEY_DESCRIPTION}; required if the body names units",
    invalid_message=IDEMPOTENCY_KEY_INVALID,
)


class CancellationList(msgspec.Struct, frozen=True):
    """The cancellations of an order, oldest first."""

    items: list[Cancellation]


class OpenCancellationList(msgspec.Struct, frozen=True):
    """Cancellations that wait for a shipment to be stopped, oldest first; 500 at most."""

    items: list[OpenCancellation]


def _customer_request(call: Call, key: str | None) -> CancelRequest:
    body: CustomerCancelInput = call.body or CustomerCancelInput()
    user_id = call.identity.subject
    return CancelRequest(
        call.parameters["order_id"], f"customer {user_id}", user_id, body.reason or _REASON, body.lines, key
    )


def _staff_request(call: Call, key: str | None) -> CancelRequest:
    body: StaffCancelInput = call.body
    return CancelRequest(call.parameters["order_id"], call.staff_actor, None, body.reason, body.lines, key)


def _require_key(lines: list[UnitsToCancel] | None, key: str | None) -> None:
    if lines is not None and key is None:
        detail = "send one with a cancellation of units, so that a repeat cancels them once"
        raise Invalid(f"Idempotency-Key: {detail}", errors=[{"pointer": "Idempotency-Key", "detail": detail}])


def _respond(answer: CancelledOrder | CancelledDetails) -> web.Response:
    """Answer 202 while a shipment is being stopped."""
    cancellation = answer.cancellation
    return json_response(answer, 202 if cancellation is not None and cancellation.status == "open" else 200)


async def cancel_order(call: Call) -> web.Response:
    """Cancel an order, or units of it, until a carrier has collected them. Money and stock are released.

    Without a body all that has not left is cancelled. 202: a carrier must cancel its booking first; units that it has
    collected by then are `kept`: once delivered, a return is opened. A repeat returns the same cancellation.
    """
    services, key = call.services, call.parameters[_KEY.name]
    request = _customer_request(call, key)
    _require_key(call.body.lines if call.body else None, key)
    return _respond(await services.cancellations.cancel(request, services.snapshots.sale_ids(), STORE_WAIT_S))


async def preview_cancellation(call: Call) -> web.Response:
    """Return the effect of a cancellation, with the refund. Nothing is changed."""
    return json_response(await call.services.cancellations.preview(_customer_request(call, None)))


async def cancel_any_order(call: Call) -> web.Response:
    """Cancel any order, or units of it, as its customer may. The customer sees the reason.

    A repeat returns the same answer.
    """
    services, key = call.services, call.parameters["Idempotency-Key"]
    _require_key(call.body.lines, key)
    sales = services.snapshots.sale_ids()
    cancelled = await services.cancellations.cancel(_staff_request(call, key), sales, STORE_WAIT_S)
    details = await services.orders.get_details(cancelled.order_id, sales)
    return _respond(CancelledDetails(**msgspec.structs.asdict(details), cancellation=cancelled.cancellation))


async def preview_any_cancellation(call: Call) -> web.Response:
    """Return the effect of a cancellation, with the refund. Nothing is changed."""
    return json_response(await call.services.cancellations.preview(_staff_request(call, None)))


async def list_cancellations(call: Call) -> web.Response:
    """List the cancellations of an order."""
    return json_response(CancellationList(await call.services.cancellations.list_of_order(call.parameters["order_id"])))


async def list_open_cancellations(call: Call) -> web.Response:
    """List cancellations that wait for a shipment to be stopped, with what last went wrong."""
    return json_response(OpenCancellationList(await call.services.cancellations.open.list_oldest()))


async def refund_shipment(call: Call) -> web.Response:
    """Cancel the units of a shipment that is lost, came back or was stopped, and refund them.

    Reship it instead to send them again. Undecided ones are refunded automatically after a time.
    """
    shipment_id, reason = call.parameters["shipment_id"], call.body.reason
    return json_response(await call.services.cancellations.refund_shipment(shipment_id, reason, call.staff_actor))


_customer = partial(Operation, tag="orders", access="customer", method="POST")
_staff = partial(Operation, tag="staff: support", access="support")
_PREVIEW: dict[int, tuple[str, Any]] = {200: ("the effect; nothing is stored", CancellationPreview)}

OPERATIONS = [
    _customer(
        path=f"{ORDER_PATH}/cancel",
        handler=cancel_order,
        summary="Cancel an order",
        answers={
            200: ("the order, cancelled as asked", CancelledOrder),
            202: ("a carrier must cancel its booking first", CancelledOrder),
        },
        problems=(404, 409, 503),
        parameters=(ORDER, _KEY),
        body=CustomerCancelInput,
        is_body_optional=True,
    ),
    _customer(
        path=f"{ORDER_PATH}/cancel/preview",
        handler=preview_cancellation,
        summary="Preview a cancellation",
        answers=_PREVIEW,
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=CustomerCancelInput,
        is_body_optional=True,
    ),
]
ADMIN = [
    _staff(
        method="POST",
        path=f"{_ADMIN_PATH}/cancel",
        handler=cancel_any_order,
        summary="Cancel any order",
        answers={
            200: ("the order, its customer and its events", CancelledDetails),
            202: ("a carrier must cancel its booking first", CancelledDetails),
        },
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=StaffCancelInput,
    ),
    _staff(
        method="POST",
        path=f"{_ADMIN_PATH}/cancel/preview",
        access="support_read",
        handler=preview_any_cancellation,
        is_one_transaction=True,
        summary="Preview a cancellation of any order",
        answers=_PREVIEW,
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=StaffCancelInput,
    ),
    _staff(
        method="GET",
        access="support_read",
        path=f"{_ADMIN_PATH}/cancellations",
        handler=list_cancellations,
        summary="List the cancellations of an order",
        answers={200: ("all of them", CancellationList)},
        problems=(503,),
        parameters=(ORDER,),
    ),
    _staff(
        method="GET",
        access="support_read",
        path="/v1/admin/cancellations",
        handler=list_open_cancellations,
        summary="List open cancellations",
        answers={200: ("the oldest ones", OpenCancellationList)},
        problems=(503,),
        also_for=("warehouse",),
    ),
    _staff(
        method="POST",
        path="/v1/admin/shipments/{shipment_id}/refund",
        handler=refund_shipment,
        summary="Refund a shipment that did not arrive",
        answers={200: ("the cancellation of its units", Cancellation)},
        problems=(404, 409, 503),
        parameters=(_SHIPMENT,),
        body=ReasonInput,
        is_one_transaction=True,
    ),
]
