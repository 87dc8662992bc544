"""Refunds for staff to end: stuck ones, and those that were made by hand."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.paging import Page
from commerce.payments.model import (
    ConsentInput,
    OrderPayments,
    OtherWayInput,
    RefundRedirectInput,
    StuckRefundView,
    TransferInput,
)
from commerce.payments.other_ways import OtherWays
from commerce.refunds.hand_refunds import HandRefunds
from commerce.refunds.model import HandRefund, HandRefundInput, HandRefundResult
from gateway.endpoints.parameters import LIMIT, ORDER, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_REFUND = Parameter(name="refund_id", location="path", type=UUID, description="the refund's id")
_Cursor = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{1,16},[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]


def _other_ways(call: Call) -> OtherWays:
    services = call.services
    return OtherWays(services.db, services.clock, services.ids, services.providers)


async def accept_store_credit(call: Call) -> web.Response:
    """Accept store credit for a refund that cannot go back to its payment. A repeat changes nothing."""
    order_id, user_id = call.parameters["order_id"], call.identity.subject
    await _other_ways(call).accept_store_credit(order_id, call.parameters["refund_id"], user_id)
    return json_response(await call.services.payments.get(order_id, user_id))


async def list_stuck_refunds(call: Call) -> web.Response:
    """List refunds that need another way, the oldest first."""
    return json_response(await _other_ways(call).list_needing_other_way(call.parameters["cursor"], page_size(call)))


async def record_consent(call: Call) -> web.Response:
    """Pay a refund as store credit, with the customer's consent."""
    consent: ConsentInput = call.body
    await _other_ways(call).record_consent(call.parameters["refund_id"], consent.proof, call.staff_actor)
    return web.Response(status=204)


async def record_transfer(call: Call) -> web.Response:
    """Record a bank transfer to the customer. The refund is done once another person has confirmed it.

    The reference takes the place of one that is not confirmed.
    """
    transfer: TransferInput = call.body
    await _other_ways(call).record_transfer(call.parameters["refund_id"], transfer.reference, call.staff_actor)
    return web.Response(status=204)


async def confirm_transfer(call: Call) -> web.Response:
    """Confirm a bank transfer that another person has recorded: the refund is done."""
    await _other_ways(call).confirm_transfer(call.parameters["refund_id"], call.staff_actor)
    return web.Response(status=204)


async def withdraw_transfer(call: Call) -> web.Response:
    """Withdraw a bank transfer that was recorded and is not confirmed."""
    await _other_ways(call).withdraw_transfer(call.parameters["refund_id"])
    return web.Response(status=204)


async def give_up_refund(call: Call) -> web.Response:
    """Give up a parked refund at its provider: it needs another way.

    First see at the provider that no money has moved.
    """
    given_up: OtherWayInput = call.body
    await _other_ways(call).need_other_way(call.parameters["refund_id"], given_up.reason, call.staff_actor)
    return web.Response(status=204)


async def redirect_refund(call: Call) -> web.Response:
    """Send an abnormal refund to the customer's debit card, or without one to the merchant's account.

    The card is passed to the provider and kept nowhere. The refund shows later what became of it.
    """
    redirect: RefundRedirectInput = call.body
    await _other_ways(call).redirect(call.parameters["refund_id"], redirect.card)
    return web.Response(status=202)


def _hand_refunds(call: Call) -> HandRefunds:
    services = call.services
    return HandRefunds(services.db, services.clock, services.ids)


async def list_hand_refunds(call: Call) -> web.Response:
    """List refunds on providers' statements that were made by hand and nobody has posted."""
    return json_response(await _hand_refunds(call).list_open(call.parameters["cursor"], page_size(call)))


async def record_hand_refund(call: Call) -> web.Response:
    """Record what is known of a refund that was made by hand.

    It is posted once another person has confirmed it.
    """
    hand_refund: HandRefundInput = call.body
    await _hand_refunds(call).record(call.parameters["refund_id"], hand_refund.proof, call.staff_actor)
    return web.Response(status=204)


async def confirm_hand_refund(call: Call) -> web.Response:
    """Confirm a refund by hand that another person has recorded: it counts as a refund of its order.

    If its payment holds less by now, it is posted as a loss: the customer has that money twice.
    """
    outcome = await _hand_refunds(call).confirm(call.parameters["refund_id"], call.staff_actor)
    return json_response(HandRefundResult(outcome))


_PATH = "/v1/admin/refunds/{refund_id}"
_staff = partial(Operation, tag="staff: payments", access="support", problems=(404, 409, 503), parameters=(_REFUND,))
_change = partial(_staff, method="POST", is_one_transaction=True, answers={204: ("recorded", None)})

OPERATIONS = [
    Operation(
        tag="payments",
        access="customer",
        method="POST",
        path="/v1/orders/{order_id}/refunds/{refund_id}/store-credit",
        handler=accept_store_credit,
        summary="Accept store credit for a refund",
        answers={200: ("the order's payments", OrderPayments)},
        problems=(404, 409, 503),
        parameters=(ORDER, _REFUND),
    ),
]

ADMIN = [
    Operation(
        tag="staff: payments",
        access="support_read",
        method="GET",
        path="/v1/admin/refunds/needing-other-way",
        handler=list_stuck_refunds,
        summary="List refunds that need another way",
        answers={200: ("a page", Page[StuckRefundView])},
        problems=(503,),
        parameters=(cursor_parameter(_Cursor), LIMIT),
    ),
    Operation(
        tag="staff: payments",
        access="support_read",
        method="GET",
        path="/v1/admin/refunds/by-hand",
        handler=list_hand_refunds,
        summary="List refunds that were made by hand",
        answers={200: ("a page", Page[HandRefund])},
        problems=(503,),
        parameters=(cursor_parameter(_Cursor), LIMIT),
    ),
    _change(
        path=f"{_PATH}/by-hand",
        handler=record_hand_refund,
        summary="Record a refund that was made by hand",
        body=HandRefundInput,
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        access="support_lead",
        path=f"{_PATH}/by-hand/confirm",
        handler=confirm_hand_refund,
        summary="Confirm a refund that was made by hand",
        answers={200: ("how it was posted", HandRefundResult)},
    ),
    _change(
        path=f"{_PATH}/store-credit",
        handler=record_consent,
        summary="Pay a refund as store credit",
        body=ConsentInput,
    ),
    _change(path=f"{_PATH}/transfer", handler=record_transfer, summary="Record a transfer", body=TransferInput),
    _change(
        path=f"{_PATH}/transfer/confirm",
        access="support_lead",
        handler=confirm_transfer,
        summary="Confirm a transfer",
    ),
    _staff(
        method="DELETE",
        path=f"{_PATH}/transfer",
        handler=withdraw_transfer,
        summary="Withdraw a transfer",
        answers={204: ("withdrawn", None)},
    ),
    _change(path=f"{_PATH}/give-up", handler=give_up_refund, summary="Give up a parked refund", body=OtherWayInput),
    _staff(
        method="POST",
        has_secrets=True,
        access="support_lead",
        path=f"{_PATH}/redirect",
        handler=redirect_refund,
        summary="Send an abnormal refund to another account",
        body=RefundRedirectInput,
        answers={202: ("its provider has got it", None)},
    ),
]
