"""Paying an order, and what providers and staff say of payments."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotFound
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal, InvalidWebhook
from commerce.kernel.money import Money
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY as DATABASE_AWAY
from commerce.kernel.postgres import safe_error_text
from commerce.orders.errors import NoSuchOrder, NotStoredYet
from commerce.orders.model import OrderStatus
from commerce.payments.errors import NotPayable
from commerce.payments.model import (
    INTERNAL_METHODS,
    OrderPayments,
    ParkedJob,
    RefundInput,
    StartPayments,
    StoreCredit,
    StoreCreditGrant,
)
from commerce.payments.provider_port import PaymentWebhook, Provider
from gateway import metrics
from gateway.endpoints.orders import CANCEL_WAIT_S, OrderId
from gateway.operations import Call, Operation, Parameter, json_response

_logger = logging.getLogger(__name__)
_TAG = "payments"
_LOOK_AGAIN_S, _LONGER = 0.05, 1.5
ProviderName = Literal["alipay", "wechatpay"]
UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]
_PROVIDER = Parameter("provider", "path", ProviderName, "who calls back")
_PAYMENT = Parameter("payment_id", "path", UUID, "the payment's id")
_JOB = Parameter("id", "path", UUID, "the id of a parked payment or refund")
_USER = Parameter("user_id", "path", UserId, "whose credit it is")
_ORDER = Parameter("order_id", "path", UUID, "the order's id")


class ParkedJobs(msgspec.Struct, frozen=True):
    """Payments and refunds that were given up, by order."""

    items: list[ParkedJob]


async def start_payments(call: Call) -> web.Response:
    """Begin to pay an order, or pay it in another way. Without `payments`, as was said when it was placed.

    The same again is the same payments. The answer waits a moment for what the providers want the customer to do; what
    is not there yet is found by reading the payments again.
    """
    services, order_id, user = call.services, call.parameters["order_id"], call.identity.subject
    deadline = services.clock.monotonic() + CANCEL_WAIT_S
    while True:
        try:
            found = await services.payments.start(order_id, user, call.body.payments)
            break
        except NoSuchOrder:
            order = await services.orders.get(order_id, user, services.snapshots.loaded())
            if order.status is OrderStatus.CANCELLED:  # it could not be written, and staff gave its goods back
                raise NotPayable("the order is cancelled") from None
            if services.clock.monotonic() >= deadline:
                raise NotStoredYet("the order is not stored yet: repeat the request in a moment") from None
        await asyncio.sleep(_LOOK_AGAIN_S)
    wait_s = _LOOK_AGAIN_S
    while _unasked(found) and services.clock.monotonic() < deadline:
        await asyncio.sleep(wait_s)
        wait_s *= _LONGER
        found = await services.payments.get(order_id, user)
    return json_response(found)


def _unasked(found: OrderPayments) -> bool:
    """Whether a payment has not been brought to its provider yet."""
    return any(
        one.current and one.status == "pending" and (one.method in INTERNAL_METHODS or one.action is None)
        for one in found.payments
    )


async def list_payments(call: Call) -> web.Response:
    """An order's payments, with those that were replaced, and what went back of each."""
    return json_response(await call.services.payments.get(call.parameters["order_id"], call.identity.subject))


async def notify_payment(call: Call) -> web.Response:
    """A provider's callback, signed by it over the raw body; answered in the provider's own form once it is stored."""
    services, name = call.services, call.parameters["provider"]
    provider = services.providers.get(name)
    if provider is None:
        raise NotFound(f"{name} is not offered here")
    headers = {key.lower(): value for key, value in call.request.headers.items()}
    try:
        notice = await _read(provider, headers, call.body, services.clock.now_ms())
    except InvalidWebhook as error:
        metrics.NOTICES.labels(name, error.code).inc()
        _logger.warning("a callback was refused", extra={"provider": name, "why": str(error)})
        return _acknowledged(provider, accepted=False)
    try:
        result = await services.payments.handle_webhook(name, notice, call.body)
    except DATABASE_AWAY as error:
        metrics.NOTICES.labels(name, "not_stored").inc()
        _logger.warning("a callback could not be stored", extra={"provider": name, "why": safe_error_text(error)})
        return _acknowledged(provider, accepted=False)
    metrics.NOTICES.labels(name, result).inc()
    if result == "refused":
        _logger.warning(
            "a callback was refused", extra={"provider": name, "payment_id": str(notice.subject.payment_id)}
        )
    if (at := getattr(notice.subject, "captured_at", None)) is not None:
        metrics.NOTICE_LAG.labels(name).observe(max(0.0, services.clock.now_ms() / 1000 - at.timestamp()))
    return _acknowledged(provider, accepted=result != "refused")


async def _read(provider: Provider, headers: dict[str, str], body: bytes, now_ms: int) -> PaymentWebhook:
    """Check it; a key that is not known may be new, so the provider's keys are renewed once."""
    try:
        return provider.read_webhook(headers, body, from_ms(now_ms))
    except InvalidWebhook as error:
        if error.code != "unknown_key":
            raise
        try:
            await provider.refresh()
        except (ExternalOutcomeUnknown, ExternalRefusal):
            raise error from None
    return provider.read_webhook(headers, body, from_ms(now_ms))


def _acknowledged(provider: Provider, *, accepted: bool) -> web.Response:
    status, content_type, body = provider.acknowledge(accepted)
    return web.Response(status=status, body=body, content_type=content_type if body else None)


async def show_payments(call: Call) -> web.Response:
    """Any order's payments."""
    return json_response(await call.services.payments.get(call.parameters["order_id"], None))


async def refund_order(call: Call) -> web.Response:
    """Give back a part of what was captured, or all that is left: the last part of the order first.

    A repeat under the same key changes nothing.
    """
    ask: RefundInput = call.body
    actor = f"staff {call.identity.subject}"
    order_id = call.parameters["order_id"]
    return json_response(
        await call.services.payments.refund(order_id, ask.idempotency_key, ask.amount, ask.reason, actor)
    )


async def collect_cash(call: Call) -> web.Response:
    """Cash on delivery was collected."""
    await call.services.payments.record_cash_collected(call.parameters["payment_id"])
    return web.Response(status=204)


async def list_parked(call: Call) -> web.Response:
    """Payments and refunds that were given up, with the reason."""
    return json_response(ParkedJobs(await call.services.payments.parked()))


async def retry_parked(call: Call) -> web.Response:
    """Take one up again."""
    await call.services.payments.retry(call.parameters["id"])
    return web.Response(status=204)


async def give_credit(call: Call) -> web.Response:
    """Give a user store credit, once for each key."""
    gift: StoreCreditGrant = call.body
    amount = Money(gift.amount, gift.currency)
    return json_response(
        await call.services.payments.grant_store_credit(call.parameters["user_id"], amount, gift.idempotency_key)
    )


async def my_credit(call: Call) -> web.Response:
    """Your store credit."""
    return json_response(await call.services.payments.credit(call.identity.subject))


_PAYMENTS = {200: ("the order's payments", OrderPayments)}
_ORDERS_PAYMENTS = "/v1/orders/{order_id}/payments"

OPERATIONS = [
    Operation("GET", _ORDERS_PAYMENTS, list_payments, "Payments", _TAG, "customer", _PAYMENTS, (404, 503), (OrderId,)),
    Operation(
        "POST",
        _ORDERS_PAYMENTS,
        start_payments,
        "Pay an order",
        _TAG,
        "customer",
        _PAYMENTS,
        (404, 409, 503),
        (OrderId,),
        StartPayments,
    ),
    Operation(
        "POST",
        "/v1/payments/{provider}/notify",
        notify_payment,
        "A provider's callback",
        _TAG,
        "anyone",
        {200: ("stored, or not, in Alipay's words", None), 204: ("stored, to WeChat Pay", None)},
        (404, 503),
        (_PROVIDER,),
        content_type="*/*",
        has_raw_body=True,
    ),
    Operation(
        "GET", "/v1/credit", my_credit, "Your store credit", _TAG, "customer", {200: ("credit", StoreCredit)}, (503,)
    ),
]

ADMIN = [
    Operation(method, path, handler, summary, "staff: payments", "support", answers, problems, parameters, body)  # type: ignore[arg-type]
    for method, path, handler, summary, answers, problems, parameters, body in (
        ("GET", "/orders/{order_id}/payments", show_payments, "Read", _PAYMENTS, (404, 503), (_ORDER,), None),
        (
            "POST",
            "/orders/{order_id}/refunds",
            refund_order,
            "Refund",
            _PAYMENTS,
            (404, 409, 503),
            (_ORDER,),
            RefundInput,
        ),
        (
            "POST",
            "/payments/{payment_id}/collected",
            collect_cash,
            "Cash was collected",
            {204: ("collected", None)},
            (404, 409, 503),
            (_PAYMENT,),
            None,
        ),
        ("GET", "/parked", list_parked, "What was given up", {200: ("all", ParkedJobs)}, (503,), (), None),
        ("POST", "/parked/{id}/retry", retry_parked, "Try again", {204: ("taken up", None)}, (404, 503), (_JOB,), None),
        (
            "POST",
            "/credit/{user_id}",
            give_credit,
            "Give credit",
            {200: ("credit", StoreCredit)},
            (503,),
            (_USER,),
            StoreCreditGrant,
        ),
    )
    for path in [f"/v1/admin{path}"]
]
