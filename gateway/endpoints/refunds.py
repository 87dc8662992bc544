"""Refunds by staff: what an order's customer would get back, and granting it."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.payments.model import OrderPayments
from commerce.refunds.model import RefundInput, RefundListInput, RefundListReport, RefundPreview, RefundTerms
from commerce.refunds.refund_lists import RefundLists
from commerce.refunds.staff_refunds import StaffRefunds
from gateway.endpoints.parameters import ORDER
from gateway.operations import Call, Operation, json_response


def _refunds(call: Call) -> StaffRefunds:
    services = call.services
    return StaffRefunds(services.db, services.clock, services.ids)


async def preview_refund(call: Call) -> web.Response:
    """Compute a refund as it would be made now: by line and unit, freight, fee, and over which payments.

    Nothing is stored. A refund of an order that changes meanwhile is computed again when it is made.
    """
    return json_response(await _refunds(call).preview(call.parameters["order_id"], call.body))


async def refund_order(call: Call) -> web.Response:
    """Refund units of an order, an amount, or all that remains.

    Units are refunded once, at what was paid for them. It is divided over the payments of the order by a strategy. A
    repeat with the same key changes nothing.
    """
    return json_response(await _refunds(call).refund(call.parameters["order_id"], call.body, call.staff_actor))


async def refund_list(call: Call) -> web.Response:
    """Refund many orders from a list: units of lines, or amounts.

    Each row stands alone and is refunded once under the list's name and its own key, whatever is repeated. With
    `dry_run` nothing is stored. The providers are called at the pace of all refunds.
    """
    services, wanted = call.services, call.body
    lists = RefundLists(services.db, services.clock, services.ids)
    return json_response(await lists.refund(wanted.name, wanted.rows, call.staff_actor, dry_run=wanted.dry_run))


_staff = partial(Operation, tag="staff: payments", access="support", method="POST")
_REFUNDS_PATH = "/v1/admin/orders/{order_id}/refunds"

ADMIN = [
    _staff(
        path=_REFUNDS_PATH,
        is_one_transaction=True,
        handler=refund_order,
        summary="Refund an order",
        answers={200: ("the order's payments", OrderPayments)},
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=RefundInput,
    ),
    _staff(
        path=f"{_REFUNDS_PATH}/preview",
        access="support_read",
        handler=preview_refund,
        summary="Preview a refund",
        answers={200: ("the refund; nothing is stored", RefundPreview)},
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=RefundTerms,
    ),
    _staff(
        path="/v1/admin/refund-lists",
        handler=refund_list,
        summary="Refund many orders",
        answers={200: ("the outcome of each row, and sums", RefundListReport)},
        problems=(503,),
        body=RefundListInput,
    ),
]
