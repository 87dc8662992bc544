"""Shipments of a customer's order, and their events."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.shipping.model import OrderShipments, ShipmentEvent
from gateway.endpoints.parameters import ORDER
from gateway.operations import Call, Operation, json_response
from gateway.server_sent_events import EventBatch, last_event_id_parameter, stream_events

_MAX_SHIPMENT_EVENTS = 2**31 - 1


async def list_shipments(call: Call) -> web.Response:
    """List an order's shipments, each with its lines and its events."""
    return json_response(
        await call.services.shipping.get_order_shipments(call.parameters["order_id"], call.identity.subject)
    )


async def watch_shipments(call: Call) -> web.StreamResponse:
    """Watch an order's shipments as server-sent events.

    `id` counts over all shipments, and `data` is a ShipmentEvent. To continue, send the last received id as
    `Last-Event-ID`: later events follow. The stream ends when the whole order has arrived, or when nothing of it will
    be sent any more. 204 means that no event will follow.
    """
    services, order_id, user_id = call.services, call.parameters["order_id"], call.identity.subject

    async def fetch(last_seq: int) -> EventBatch[ShipmentEvent]:
        return EventBatch(*await services.shipping.events_after(order_id, user_id, max(last_seq, 0)))

    return await stream_events(call, "shipments", order_id, "shipment", fetch)


_SHIPMENTS_PATH = "/v1/orders/{order_id}/shipments"
_operation = partial(Operation, method="GET", tag="shipping", access="customer", problems=(404, 503))

OPERATIONS = [
    _operation(
        path=_SHIPMENTS_PATH,
        handler=list_shipments,
        summary="List an order's shipments",
        answers={200: ("the order's shipments", OrderShipments)},
        parameters=(ORDER,),
    ),
    _operation(
        path=f"{_SHIPMENTS_PATH}/events",
        handler=watch_shipments,
        summary="Watch shipments",
        answers={200: ("events until every shipment has ended", None), 204: ("no event will follow", None)},
        parameters=(ORDER, last_event_id_parameter(_MAX_SHIPMENT_EVENTS)),
        content_type="text/event-stream",
    ),
]
