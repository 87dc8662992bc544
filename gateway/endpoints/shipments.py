"""Where are my parcels? And what carriers tell of them by themselves."""

from __future__ import annotations

import logging
from typing import Literal

from aiohttp import web

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotFound
from commerce.kernel.external import InvalidWebhook
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY as DATABASE_AWAY
from commerce.kernel.postgres import safe_error_text
from commerce.shipping.carrier_port import CarrierWebhookReader
from commerce.shipping.model import OrderShipments, ShipmentEvent
from gateway import metrics
from gateway.endpoints.orders import OrderId
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.server_sent_events import EventBatch, last_event_id_parameter, stream_events

_logger = logging.getLogger(__name__)
_TAG = "shipping"
_MOST_EVENTS = 2**31 - 1
SystemName = Literal["sf_express", "kuaidi100"]
_SYSTEM = Parameter("carrier", "path", SystemName, "who pushes")


async def list_shipments(call: Call) -> web.Response:
    """An order's parcels, each with what is in it and what has happened to it so far."""
    return json_response(await call.services.shipping.show(call.parameters["order_id"], call.identity.subject))


async def watch_shipments(call: Call) -> web.StreamResponse:
    """What happens to an order's parcels as server-sent events: `id` counts over all, `data` is a ShipmentEvent.

    After a break a client sends the last id it saw as `Last-Event-ID` and gets what came after it. The stream ends
    when all of the order has arrived, or none of it will be sent any more; 204 says that nothing will come.
    """
    services, order_id, user = call.services, call.parameters["order_id"], call.identity.subject

    async def fetch(seen: int) -> EventBatch[ShipmentEvent]:
        return EventBatch(*await services.shipping.events_after(order_id, user, max(seen, 0)))

    return await stream_events(call, "parcels", order_id, "parcel", fetch)


async def notify_carrier(call: Call) -> web.Response:
    """A carrier's push, checked as its protocol says; answered in its own form once it is stored."""
    services, system = call.services, call.parameters["carrier"]
    reader = services.carriers.webhook_readers.get(system)
    if reader is None:
        raise NotFound(f"nothing is agreed with {system} here")
    headers = {key.lower(): value for key, value in call.request.headers.items()}
    query = dict(call.request.query)
    try:
        notice = reader.read_webhook(headers, query, call.body, from_ms(services.clock.now_ms()))
    except InvalidWebhook as error:
        metrics.PUSHES.labels(system, error.code).inc()
        _logger.warning("a push was refused", extra={"system": system, "why": str(error)})
        return _acknowledged(reader, accepted=False)
    try:
        heard = await services.shipping.handle_webhook(system, notice, call.body)
    except DATABASE_AWAY as error:
        metrics.PUSHES.labels(system, "not_stored").inc()
        _logger.warning("a push could not be stored", extra={"system": system, "why": safe_error_text(error)})
        return _acknowledged(reader, accepted=False)
    metrics.PUSHES.labels(system, heard.result).inc()
    metrics.UNKNOWN_STATES.labels(system).inc(heard.unknown)
    return _acknowledged(reader, accepted=heard.result != "unknown_number")


def _acknowledged(reader: CarrierWebhookReader, *, accepted: bool) -> web.Response:
    status, content_type, body = reader.acknowledge(accepted)
    return web.Response(status=status, body=body, content_type=content_type if body else None)


_SHIPMENTS = {200: ("the order's parcels", OrderShipments)}
OPERATIONS = [
    Operation(
        "GET",
        "/v1/orders/{order_id}/shipments",
        list_shipments,
        "Parcels",
        _TAG,
        "customer",
        _SHIPMENTS,
        (404, 503),
        (OrderId,),
    ),
    Operation(
        "GET",
        "/v1/orders/{order_id}/shipments/events",
        watch_shipments,
        "Watch parcels",
        _TAG,
        "customer",
        {200: ("events until every parcel is over", None), 204: ("nothing more will come", None)},
        (404, 503),
        (OrderId, last_event_id_parameter(_MOST_EVENTS)),
        content_type="text/event-stream",
    ),
    Operation(
        "POST",
        "/v1/carriers/{carrier}/notify",
        notify_carrier,
        "A carrier's push",
        _TAG,
        "anyone",
        {200: ("what the carrier wants to read", None), 400: ("the same, where it was not stored", None)},
        (404, 503),
        (_SYSTEM,),
        has_raw_body=True,
        content_type="*/*",
    ),
]
