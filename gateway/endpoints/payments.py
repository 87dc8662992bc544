"""Paying an order, and staff operations on payments, refunds and store credit."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.money import Money
from commerce.ledger.model import CashHolder
from commerce.orders.errors import NoSuchOrder, NotStoredYet
from commerce.orders.model import OrderStatus
from commerce.payments.errors import NotPayable
from commerce.payments.model import (
    INTERNAL_METHODS,
    CashWaiverInput,
    OrderPayments,
    StartPayments,
    StoreCredit,
    StoreCreditGrant,
)
from commerce.shipping.cash_waivers import CashWaivers
from gateway.endpoints.orders import STORE_WAIT_S
from gateway.endpoints.parameters import ORDER
from gateway.operations import Call, Operation, Parameter, json_response

_POLL_INITIAL_S, _POLL_GROWTH = 0.05, 1.5
_POLL_AWAKE_S = 0.5
"""first poll while wake-ups come; a lost one costs as much"""
UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]
_PAYMENT = Parameter(name="payment_id", location="path", type=UUID, description="the payment's id")
_HOLDER = Parameter(
    name="holder",
    location="query",
    type=CashHolder | None,
    description="who has the cash: `shop`, `carrier:NAME` or `driver:VEHICLE`",
)
_USER = Parameter(name="user_id", location="path", type=UserId, description="the customer who has the store credit")


async def start_payments(call: Call) -> web.Response:
    """Start to pay an order, or change its payments.

    Without `payments`, those of the order itself are used. The same request again returns the same payments, with a
    new action where the earlier one has expired.
    The answer waits up to 2 seconds for the actions that providers require of the customer. To get a later action,
    read the payments again.
    """
    services, order_id, user_id = call.services, call.parameters["order_id"], call.identity.subject
    client_ip = services.client_addresses.find(call.request).ip  # a proxy's address is not the payer's
    deadline = services.clock.monotonic() + STORE_WAIT_S
    changes = services.watcher.changes
    with changes.watch(order_id) as changed:
        while True:
            try:
                order_payments = await services.payments.start(order_id, user_id, call.body.payments, client_ip)
                break
            except NoSuchOrder:
                order = await services.orders.get(order_id, user_id, services.snapshots.sale_ids())
                if order.status is OrderStatus.CANCELLED:  # it could not be stored, and staff discarded it
                    raise NotPayable("the order is cancelled") from None
                if services.clock.monotonic() >= deadline:
                    raise NotStoredYet("the order is not stored yet; repeat the request in a moment") from None
            await asyncio.sleep(_POLL_INITIAL_S)
        interval_s = _POLL_AWAKE_S if changes.is_listening else _POLL_INITIAL_S
        while _awaits_provider(order_payments) and (left_s := deadline - services.clock.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(interval_s, left_s)):
                    await changed.wait()
            changed.clear()
            interval_s *= _POLL_GROWTH
            order_payments = await services.payments.get(order_id, user_id)
    return json_response(order_payments)


def _awaits_provider(order_payments: OrderPayments) -> bool:
    """Tell whether a current payment was not sent to its provider, or not done by us, yet."""
    return any(
        payment.current
        and payment.status == "pending"
        and (payment.method in INTERNAL_METHODS or payment.action is None)
        for payment in order_payments.payments
    )


async def list_payments(call: Call) -> web.Response:
    """List an order's payments with their refunds, replaced payments included."""
    return json_response(await call.services.payments.get(call.parameters["order_id"], call.identity.subject))


async def show_payments(call: Call) -> web.Response:
    """List any order's payments with their refunds."""
    return json_response(await call.services.payments.get(call.parameters["order_id"], None))


async def record_cash_collected(call: Call) -> web.Response:
    """Record that the cash of a payment on delivery was collected, and who has it."""
    holder = call.parameters["holder"] or "shop"
    await call.services.payments.record_cash_collected(call.parameters["payment_id"], holder, call.staff_actor)
    return web.Response(status=204)


async def waive_cash(call: Call) -> web.Response:
    """Waive cash that is missing though all of the order is delivered. A repeat changes nothing.

    The payment is captured with what was collected. The customer sees the reason.
    """
    waiver: CashWaiverInput = call.body
    services = call.services
    waivers = CashWaivers(services.db, services.clock, services.ids)
    await waivers.waive(call.parameters["payment_id"], waiver.reason, call.staff_actor)
    return web.Response(status=204)


async def grant_store_credit(call: Call) -> web.Response:
    """Grant a customer store credit, once per key."""
    grant: StoreCreditGrant = call.body
    amount = Money(grant.amount, grant.currency)
    return json_response(
        await call.services.payments.grant_store_credit(
            call.parameters["user_id"], amount, grant.idempotency_key, call.staff_actor
        )
    )


async def show_store_credit(call: Call) -> web.Response:
    """Read your store credit."""
    return json_response(await call.services.payments.get_store_credit(call.identity.subject))


_PAYMENTS_PATH = "/v1/orders/{order_id}/payments"
_PAYMENTS_ANSWER = {200: ("the order's payments", OrderPayments)}
_customer = partial(Operation, tag="payments", access="customer")
_staff = partial(Operation, tag="staff: payments", access="support")

OPERATIONS = [
    _customer(
        method="GET",
        path=_PAYMENTS_PATH,
        handler=list_payments,
        summary="List an order's payments",
        answers=_PAYMENTS_ANSWER,
        problems=(404, 503),
        parameters=(ORDER,),
    ),
    _customer(
        method="POST",
        path=_PAYMENTS_PATH,
        handler=start_payments,
        summary="Pay an order",
        answers=_PAYMENTS_ANSWER,
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=StartPayments,
    ),
    _customer(
        method="GET",
        path="/v1/store-credit",
        handler=show_store_credit,
        summary="Read your store credit",
        answers={200: ("the store credit", StoreCredit)},
        problems=(503,),
    ),
]

ADMIN = [
    _staff(
        method="GET",
        access="support_read",
        path="/v1/admin/orders/{order_id}/payments",
        handler=show_payments,
        summary="List any order's payments",
        answers=_PAYMENTS_ANSWER,
        problems=(404, 503),
        parameters=(ORDER,),
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/payments/{payment_id}/cash-collected",
        handler=record_cash_collected,
        summary="Record collected cash",
        answers={204: ("recorded", None)},
        problems=(404, 409, 503),
        parameters=(_PAYMENT, _HOLDER),
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/payments/{payment_id}/cash-waived",
        handler=waive_cash,
        summary="Waive missing cash",
        answers={204: ("waived", None)},
        problems=(404, 409, 503),
        parameters=(_PAYMENT,),
        body=CashWaiverInput,
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/store-credit/{user_id}",
        handler=grant_store_credit,
        summary="Grant store credit",
        answers={200: ("the customer's store credit", StoreCredit)},
        problems=(503,),
        parameters=(_USER,),
        body=StoreCreditGrant,
    ),
]
