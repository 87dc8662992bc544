"""Webhooks of payment providers and carriers, without a token: each protocol has its own proof."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Literal

from aiohttp import web

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotFound
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal, InvalidWebhook, WebhookReply
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY, safe_error_text
from commerce.payments.provider_port import PaymentWebhook, Provider
from commerce.payments.providers import PROVIDER_NAMES
from commerce.shipping.carriers import WEBHOOK_SYSTEMS
from gateway import metrics
from gateway.operations import Call, Operation, Parameter

_logger = logging.getLogger(__name__)
ProviderName: Any = Literal[PROVIDER_NAMES]
SystemName: Any = Literal.__getitem__(WEBHOOK_SYSTEMS)


async def receive_payment_webhook(call: Call) -> web.Response:
    """Receive a provider's webhook, signed over the raw body. The answer has the provider's own form.

    The answer is favourable once the webhook is stored, now or earlier.
    """
    services, name = call.services, call.parameters["provider"]
    provider = services.providers.get(name)
    if provider is None:
        raise NotFound(f"{name} is not offered here")
    try:
        webhook = await _read_payment_webhook(provider, _lower_case_headers(call), call.body, services.clock.now_ms())
    except InvalidWebhook as error:
        metrics.PAYMENT_WEBHOOKS.labels(name, error.code).inc()
        _logger.warning("rejected an invalid payment webhook", extra={"provider": name, "reason": str(error)})
        return _response(provider.acknowledge(False))
    try:
        result = await services.payments.handle_webhook(name, webhook, call.body)
    except POSTGRES_UNAVAILABLE_OR_BUSY as error:
        metrics.PAYMENT_WEBHOOKS.labels(name, "not_stored").inc()
        _logger.warning("could not store a payment webhook", extra={"provider": name, "reason": safe_error_text(error)})
        return _response(provider.acknowledge(False))
    metrics.PAYMENT_WEBHOOKS.labels(name, result).inc()
    if result == "refused":
        _logger.warning(
            "a payment webhook contradicts our records",
            extra={"provider": name, "payment_id": str(webhook.subject.payment_id)},
        )
    if (captured_at := getattr(webhook.subject, "captured_at", None)) is not None:
        lag_s = services.clock.now_ms() / 1000 - captured_at.timestamp()
        metrics.PAYMENT_WEBHOOK_LAG.labels(name).observe(max(0.0, lag_s))
    return _response(provider.acknowledge(result != "refused"))


async def _read_payment_webhook(
    provider: Provider, headers: dict[str, str], body: bytes, now_ms: int
) -> PaymentWebhook:
    """Verify and decode a webhook.

    An unknown key may be new, so the provider's keys are fetched again once. Raises `InvalidWebhook` if it is not
    genuine or cannot be decoded.
    """
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


async def receive_carrier_webhook(call: Call) -> web.Response:
    """Receive tracking events from a carrier's system. The answer has the system's own form.

    The answer is favourable once the events are stored, now or earlier.
    """
    services, system = call.services, call.parameters["system"]
    reader = services.carriers.webhook_readers.get(system)
    if reader is None:
        raise NotFound(f"{system} is not configured here")
    query = dict(call.request.query)
    try:
        webhook = reader.read_webhook(_lower_case_headers(call), query, call.body, from_ms(services.clock.now_ms()))
    except InvalidWebhook as error:
        metrics.CARRIER_WEBHOOKS.labels(system, error.code).inc()
        _logger.warning("refused a carrier webhook", extra={"system": system, "reason": str(error)})
        return _response(reader.acknowledge(False))
    try:
        tracking = await services.shipping.handle_webhook(system, webhook, call.body)
    except POSTGRES_UNAVAILABLE_OR_BUSY as error:
        metrics.CARRIER_WEBHOOKS.labels(system, "not_stored").inc()
        _logger.warning("could not store a carrier webhook", extra={"system": system, "reason": safe_error_text(error)})
        return _response(reader.acknowledge(False))
    metrics.CARRIER_WEBHOOKS.labels(system, tracking.result).inc()
    metrics.CARRIER_UNKNOWN_CODES.labels(system).inc(tracking.unknown_codes)
    return _response(reader.acknowledge(tracking.result not in ("unknown_tracking_no", "not_stored")))


def _lower_case_headers(call: Call) -> dict[str, str]:
    return {name.lower(): value for name, value in call.request.headers.items()}


def _response(reply: WebhookReply) -> web.Response:
    status, content_type, body = reply
    return web.Response(status=status, body=body, content_type=content_type if body else None)


_webhook = partial(
    Operation,
    method="POST",
    access="anyone",
    problems=(404, 503),
    content_type="*/*",
    has_raw_body=True,
    share="webhooks",
)

OPERATIONS = [
    _webhook(
        path="/v1/webhooks/payments/{provider}",
        handler=receive_payment_webhook,
        summary="Receive a payment webhook",
        tag="payments",
        answers={200: ("stored or not, in Alipay's words", None), 204: ("stored, to WeChat Pay", None)},
        parameters=(
            Parameter(name="provider", location="path", type=ProviderName, description="the sending provider"),
        ),
    ),
    _webhook(
        path="/v1/webhooks/carriers/{system}",
        handler=receive_carrier_webhook,
        summary="Receive a carrier webhook",
        tag="shipping",
        answers={200: ("stored or not, in the system's own form", None), 400: ("not stored, to kuaidi100", None)},
        parameters=(Parameter(name="system", location="path", type=SystemName, description="the sending system"),),
    ),
]
