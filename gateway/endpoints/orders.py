"""Placing, reading, watching and cancelling orders."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from commerce.kernel.paging import Page
from commerce.orders.model import Order, OrderEvent, OrderStatus, PlacedOrder, PlaceOrder
from commerce.orders.service import Actor
from gateway.endpoints.catalog import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.order_placement import KEY_DESCRIPTION, KEY_WRONG, IdempotencyKey
from gateway.server_sent_events import EventBatch, last_event_id_parameter, stream_events
from gateway.services import ORDER_ID

ORDERS_PATH = "/v1/orders"
_TAG = "orders"
CANCEL_WAIT_S = 2.0
TRACEPARENT_CHARS = 64
_FINAL = (OrderStatus.CANCELLED, OrderStatus.COMPLETED)

OrderId = Parameter("order_id", "path", UUID, "the id that the answer to the order gave")
KEY = Parameter(
    "Idempotency-Key",
    "header",
    IdempotencyKey,
    KEY_DESCRIPTION,
    required=True,
    invalid_message=KEY_WRONG,
)


async def place_order(call: Call) -> web.Response:
    """Take the stock and queue the order in one step. 202: the order is safe and will be stored in a moment.

    Repeat with the same Idempotency-Key whenever the outcome is not known: the same order is never taken twice, and a
    repeat of an accepted order answers 200 with the first answer. Lines of one SKU are added together; all lines are
    taken or none.
    """
    services = call.services
    traceparent = call.request.headers.get("traceparent", "")[:TRACEPARENT_CHARS]
    if not traceparent.isascii():
        traceparent = ""  # no trace context, and bytes that are no UTF-8 could not be written on
    key = call.parameters[KEY.name]
    placed, status = await services.placement.place(call.body, call.identity.subject, key, traceparent)
    services.metrics_buffer.order("accepted" if status == 202 else "replayed")
    call.request[ORDER_ID] = str(placed.order_id)
    return json_response(placed, status, {"Location": f"/v1/orders/{placed.order_id}"})


async def list_orders(call: Call) -> web.Response:
    """Your stored orders, newest first; with `idempotency_key` the one order that stands under it, however young."""
    services, user = call.services, call.identity.subject
    if key := call.parameters["idempotency_key"]:
        order = await services.orders.find_by_key(user, key, services.snapshots.loaded())
        return json_response(Page([order] if order else [], None))
    found = await services.orders.page(user, call.parameters["cursor"], page_size(call))
    items = [Order(o.order_id, o.status, o.sale_id, o.total, o.accepted_at, o.pay_by) for o in found.items]
    return json_response(Page(items, found.next))


async def get_order(call: Call) -> web.Response:
    """One of your orders. From the moment of its 202 it is found, with few details until it is stored."""
    services = call.services
    order = await services.orders.get(call.parameters["order_id"], call.identity.subject, services.snapshots.loaded())
    return json_response(order)


async def cancel_order(call: Call) -> web.Response:
    """Cancel an order that is not paid yet. Its goods go back; a repeat gives the same answer."""
    services, user = call.services, call.identity.subject
    actor = Actor(user, f"customer {user}")
    sales = services.snapshots.loaded()
    return json_response(await services.orders.cancel(call.parameters["order_id"], actor, sales, CANCEL_WAIT_S))


async def watch_order(call: Call) -> web.StreamResponse:
    """An order's status as server-sent events: `id` counts the events, `data` is an OrderEvent.

    After a break a client sends the last id it saw as `Last-Event-ID` and gets what came after it. The stream ends
    with an order that can change no more; asked again for such a one, 204 says that nothing will come.
    """
    services, order_id, user = call.services, call.parameters["order_id"], call.identity.subject
    sales = services.snapshots.loaded()

    async def fetch(seen: int) -> EventBatch[OrderEvent]:
        events = await services.orders.events(order_id, user, sales)
        return EventBatch(events, events[-1].status in _FINAL)

    return await stream_events(call, "order", order_id, "status", fetch)


OPERATIONS = [
    Operation(
        "POST",
        ORDERS_PATH,
        place_order,
        "Place an order",
        _TAG,
        "customer",
        {202: ("accepted, and safe", PlacedOrder), 200: ("accepted before, under the same key", PlacedOrder)},
        (403, 404, 409, 410, 429, 503),
        (KEY,),
        PlaceOrder,
        admit=True,
        links=("get_order", "watch_order", "cancel_order"),
    ),
    Operation(
        "GET",
        "/v1/orders",
        list_orders,
        "List your orders",
        _TAG,
        "customer",
        {200: ("a page of orders", Page[Order])},
        (503,),
        (
            cursor_parameter(UUID),
            LIMIT,
            Parameter("idempotency_key", "query", IdempotencyKey, "find the order of a lost answer"),
        ),
    ),
    Operation(
        "GET",
        "/v1/orders/{order_id}",
        get_order,
        "Read an order",
        _TAG,
        "customer",
        {200: ("the order", Order)},
        (404, 503),
        (OrderId,),
    ),
    Operation(
        "GET",
        "/v1/orders/{order_id}/events",
        watch_order,
        "Watch an order",
        _TAG,
        "customer",
        {200: ("events until the order can change no more", None), 204: ("nothing more will come", None)},
        (404, 503),
        (
            OrderId,
            last_event_id_parameter(32_767),
        ),
        content_type="text/event-stream",
    ),
    Operation(
        "POST",
        "/v1/orders/{order_id}/cancel",
        cancel_order,
        "Cancel an order",
        _TAG,
        "customer",
        {200: ("the cancelled order", Order)},
        (404, 409, 503),
        (OrderId,),
    ),
]
