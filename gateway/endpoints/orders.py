"""Placing, reading and watching orders."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from aiohttp import web

from commerce.kernel.paging import Page
from commerce.orders.model import Order, OrderEvent, OrderStatus, PlacedOrder, PlaceOrder
from commerce.orders.quotes import Quote, QuoteInput
from gateway.cached_content import content_response
from gateway.decoding import IDEMPOTENCY_KEY_DESCRIPTION, IDEMPOTENCY_KEY_INVALID, IdempotencyKey
from gateway.endpoints.parameters import IF_NONE_MATCH, LIMIT, ORDER, ROOM_TICKET, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.order_checks import check_customer, read_traceparent
from gateway.order_placement import ORDERS_PATH
from gateway.order_reads import encode_order
from gateway.rate_limits import DEVICE_HEADER, DEVICE_ID_INVALID, DeviceId
from gateway.server_sent_events import EventBatch, last_event_id_parameter, stream_events
from gateway.services import ORDER_ID

STORE_WAIT_S = 2.0
"""Maximum wait of a request until an accepted order is stored."""
_MAX_ORDER_EVENTS = 32_767
ORDER_PATH = f"{ORDERS_PATH}/{{order_id}}"
_FINAL_STATUSES = (OrderStatus.CANCELLED, OrderStatus.COMPLETED)

KEY = Parameter(
    name="Idempotency-Key",
    location="header",
    type=IdempotencyKey,
    description=IDEMPOTENCY_KEY_DESCRIPTION,
    required=True,
    invalid_message=IDEMPOTENCY_KEY_INVALID,
)
_DEVICE = Parameter(
    name=DEVICE_HEADER,
    location="header",
    type=DeviceId | None,
    description="id of the device or installation; orders of one device are limited too",
    invalid_message=DEVICE_ID_INVALID,
)


async def place_order(call: Call) -> web.Response:
    """Reserve the stock and queue the order in one step. 202: the order is safe and is stored in a moment.

    Repeat with the same Idempotency-Key whenever the outcome is unknown: the same order is never accepted twice, and a
    repeat of an accepted order returns 200 with the first answer. Lines of one SKU are added together. All lines are
    reserved or none.
    """
    services, key, user_id = call.services, call.parameters[KEY.name], call.identity.subject
    await check_customer(services, call.request, call.body, user_id, key, call.parameters[ROOM_TICKET.name])
    traceparent = read_traceparent(call.request)
    placed, status = await services.placement.place(call.body, user_id, key, traceparent)
    services.metrics_buffer.count_order("accepted" if status == 202 else "replayed")
    services.known_keys.add(call.request.headers["Authorization"].encode(), key.encode())
    call.request[ORDER_ID] = str(placed.order_id)
    return json_response(placed, status, {"Location": f"{ORDERS_PATH}/{placed.order_id}"})


async def quote_order(call: Call) -> web.Response:
    """Price an order as it would be placed now, with its stock, your limits, freight and payment methods.

    A quote reserves nothing. It names the promotions that apply, and those in reach with what is missing. An order that
    would be refused for its stock or its sale is quoted too, with the obstacles.
    """
    return json_response(await call.services.shopping.quotes.quote(call.body, call.identity.subject))


async def list_orders(call: Call) -> web.Response:
    """List your stored orders, newest first.

    With `idempotency_key`, return the one order with that key, from the moment of its 202 on.
    """
    services, user_id = call.services, call.identity.subject
    if key := call.parameters["idempotency_key"]:
        order = await services.orders.find_by_key(user_id, key, services.snapshots.sale_ids())
        return json_response(Page([order] if order else [], None))
    page = await services.orders.list_orders(user_id, call.parameters["cursor"], page_size(call))
    orders = [
        Order(
            order_id=stored.order_id,
            status=stored.status,
            sale_id=stored.sale_id,
            total=stored.total,
            accepted_at=stored.accepted_at,
            pay_by=stored.pay_by,
            payment_state=stored.payment_state,
            delivery_state=stored.delivery_state,
            return_state=stored.return_state,
        )
        for stored in page.items
    ]
    return json_response(Page(orders, page.next))


async def get_order(call: Call) -> web.Response:
    """Read one of your orders: from the moment of its 202, with few details until it is stored."""
    services = call.services
    order = await services.orders.get(call.parameters["order_id"], call.identity.subject, services.snapshots.sale_ids())
    return content_response(call.parameters[IF_NONE_MATCH.name], encode_order(order))


async def watch_order(call: Call) -> web.StreamResponse:
    """Watch an order as server-sent events: `id` counts the events, `data` is an OrderEvent.

    To continue, send the last received id as `Last-Event-ID`: later events follow. The stream ends when the order has
    its final status and no refund, cancellation or case is open. 204 means that no event will follow.
    """
    services, order_id, user_id = call.services, call.parameters["order_id"], call.identity.subject
    sales = services.snapshots.sale_ids()

    async def fetch(last_seq: int) -> EventBatch[OrderEvent]:
        events = await services.orders.list_events(order_id, user_id, sales)
        if events[-1].status not in _FINAL_STATUSES or await services.orders.has_open_matters(order_id):
            return EventBatch(events, final=False)
        # What ended since the first read has its events now.
        return EventBatch(await services.orders.list_events(order_id, user_id, sales), final=True)

    return await stream_events(call, "order", order_id, "status", fetch)


_operation = partial(Operation, tag="orders", access="customer")

OPERATIONS = [
    _operation(
        method="POST",
        path=ORDERS_PATH,
        handler=place_order,
        summary="Place an order",
        answers={
            202: ("accepted, and safe", PlacedOrder),
            200: ("accepted earlier with the same key", PlacedOrder),
        },
        problems=(403, 404, 409, 410, 429, 503),
        parameters=(KEY, _DEVICE, ROOM_TICKET),
        body=PlaceOrder,
        admit=True,
        links=("get_order", "watch_order", "cancel_order"),
    ),
    _operation(
        method="POST",
        path=f"{ORDERS_PATH}/quote",
        handler=quote_order,
        summary="Quote an order",
        answers={200: ("the price; nothing is reserved", Quote)},
        problems=(404, 429, 503),
        body=QuoteInput,
        admit=True,
    ),
    _operation(
        method="GET",
        path=ORDERS_PATH,
        handler=list_orders,
        summary="List your orders",
        answers={200: ("a page of orders", Page[Order])},
        problems=(503,),
        parameters=(
            cursor_parameter(UUID),
            LIMIT,
            Parameter(
                name="idempotency_key",
                location="query",
                type=IdempotencyKey,
                description="find the order of a lost answer",
            ),
        ),
    ),
    _operation(
        method="GET",
        path=ORDER_PATH,
        handler=get_order,
        summary="Read an order",
        answers={200: ("the order", Order), 304: ("unchanged since the ETag of the client", None)},
        problems=(404, 503),
        parameters=(ORDER, IF_NONE_MATCH),
    ),
    _operation(
        method="GET",
        path=f"{ORDER_PATH}/events",
        handler=watch_order,
        summary="Watch an order",
        answers={200: ("events until the final status", None), 204: ("no event will follow", None)},
        problems=(404, 503),
        parameters=(ORDER, last_event_id_parameter(_MAX_ORDER_EVENTS)),
        content_type="text/event-stream",
    ),
]
