"""Placing, reading, watching and cancelling orders."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.clock import DAY_MS, from_ms
from commerce.kernel.errors import Invalid, NotReady
from commerce.kernel.money import Money
from commerce.kernel.paging import Page
from commerce.kernel.redisdb import DOWN
from commerce.orders.errors import KeyReused
from commerce.orders.model import Order, OrderEvent, OrderStatus, PlacedOrder, PlaceOrder
from commerce.orders.pricing import PricedOrder, body_digest, price_order
from commerce.orders.service import Actor
from commerce.sales.errors import OverLimit, SaleClosed, SaleNotOpen, SalePaused, SoldOut
from commerce.sales.model import SALE_PATTERN
from gateway import metrics
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.routes.catalog import LIMIT, cursor, page_size
from gateway.services import ORDER_ID, REQUEST_ID
from lua import EntryId, Outcome, Record, Reserved, SaleKeys, find_keys

PLACE = "/v1/orders"
_TAG = "orders"
_CANCEL_WAIT_S = 2.0
_HEARTBEAT_S = 15.0
_SALE_ID = re.compile(SALE_PATTERN)
_FINAL = (OrderStatus.CANCELLED, OrderStatus.COMPLETED)

IdempotencyKey = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
OrderId = Parameter("order_id", "path", UUID, "the id that the answer to the order gave")
KEY = Parameter(
    "Idempotency-Key",
    "header",
    IdempotencyKey,
    "any text of up to 128 printable characters, new for each order; a repeat with the same key is the same order",
    required=True,
)


async def place_order(call: Call) -> web.Response:
    """Take the stock and queue the order in one step. 202: the order is safe and will be stored in a moment.

    Repeat with the same Idempotency-Key whenever the outcome is not known: the same order is never taken twice, and a
    repeat of an accepted order answers 200 with the first answer. Lines of one SKU are added together; all lines are
    taken or none.
    """
    order: PlaceOrder = call.body
    for attempt in range(2):
        try:
            priced = await _priced(call, order)
        except Invalid:
            if replay := await _replay(call, order):
                return replay
            raise
        reserved = await call.services.intake.place(order.sale_id, priced.reservation)
        if reserved.outcome is not Outcome.STALE:
            break
        if attempt == 0:
            await call.services.snapshots.refresh()
    if reserved.outcome is Outcome.ACCEPTED:
        metrics.ORDERS.labels("accepted").inc()
        order_id = priced.reservation.order_id
        return await _placed(call, order_id, priced.total.amount, reserved.entry, 202)
    if reserved.outcome is Outcome.REPLAYED and reserved.record is not None:
        return await _replayed(call, reserved.record)
    raise _refusal(reserved, order.sale_id)


async def _replay(call: Call, order: PlaceOrder) -> web.Response | None:
    """An order that was accepted under this key on terms that have changed since, and that is now repeated."""
    services = call.services
    day = services.clock.now_ms() // DAY_MS
    try:
        found = await find_keys(
            services.redis, [SaleKeys(order.sale_id)], day, call.identity.subject, call.parameters[KEY.name]
        )
    except DOWN:
        raise NotReady("Redis cannot be reached, nothing was taken; repeat with the same key") from None
    record = found[0]
    if record is None:
        return None
    if record.body_digest != body_digest(order):
        raise _refusal(Reserved(Outcome.KEY_REUSED), order.sale_id)
    return await _replayed(call, record)


async def _replayed(call: Call, record: Record) -> web.Response:
    metrics.ORDERS.labels("replayed").inc()
    return await _placed(call, record.order_id, record.total_minor, record.entry, 200)


async def _priced(call: Call, order: PlaceOrder) -> PricedOrder:
    if not _SALE_ID.fullmatch(order.sale_id):
        raise Invalid("/sale_id: not the id of a sale", errors=[{"at": "/sale_id", "detail": "not the id of a sale"}])
    snapshot = await call.services.snapshots.get(order.sale_id)
    return price_order(
        order,
        snapshot,
        call.services.order_limits,
        user_id=call.identity.subject,
        idempotency_key=call.parameters[KEY.name],
        order_id=call.services.ids.new(),
        traceparent=call.request.headers.get("traceparent", "")[:64],
    )


async def _placed(call: Call, order_id: UUID, total_minor: int, entry: EntryId | None, status: int) -> web.Response:
    assert entry is not None
    sale = (await call.services.snapshots.get(call.body.sale_id)).sale
    pay_by = from_ms(entry.ms) + timedelta(seconds=sale.pay_within_s)
    total = Money(total_minor, sale.currency)
    placed = PlacedOrder(order_id, "accepted", sale.sale_id, total, pay_by, call.services.settings.durability)
    call.request[ORDER_ID] = str(order_id)
    return json_response(placed, status, {"Location": f"/v1/orders/{order_id}"})


def _refusal(reserved: Reserved, sale_id: str) -> Exception:
    match reserved.outcome:
        case Outcome.KEY_REUSED:
            return KeyReused("this Idempotency-Key stands for an order with other content: use a new key")
        case Outcome.NOT_OPEN:
            opens_at = from_ms(reserved.opens_ms)
            text = opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            return SaleNotOpen(f"{sale_id} opens at {text}", opens_at=text)
        case Outcome.PAUSED:
            return SalePaused(f"{sale_id} takes no orders for the moment; try again later")
        case Outcome.CLOSED:
            return SaleClosed(f"{sale_id} takes no orders any more")
        case Outcome.SOLD_OUT:
            return SoldOut(f"not as many of {reserved.sku} are left; nothing was taken", sku=reserved.sku)
        case Outcome.OVER_LIMIT:
            detail = f"you may not buy as many of {reserved.sku}, counting earlier orders; nothing was taken"
            return OverLimit(detail, sku=reserved.sku)
        case _:
            return NotReady(f"{sale_id} is being made ready; repeat with the same key in a moment")


async def list_orders(call: Call) -> web.Response:
    """Your stored orders, newest first; with `idempotency_key` the one order that stands under it, however young."""
    services, user = call.services, call.identity.subject
    if key := call.parameters["idempotency_key"]:
        order = await services.orders.by_key(user, key, services.snapshots.loaded())
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
    return json_response(await services.orders.cancel(call.parameters["order_id"], actor, sales, _CANCEL_WAIT_S))


async def watch_order(call: Call) -> web.StreamResponse:
    """An order's status as server-sent events: `id` counts the events, `data` is an OrderEvent.

    After a break a client sends the last id it saw as `Last-Event-ID` and gets what came after it. The stream ends
    with an order that can change no more; asked again for such a one, 204 says that nothing will come.
    """
    services, order_id, user = call.services, call.parameters["order_id"], call.identity.subject
    sales = services.snapshots.loaded()
    last = call.parameters["Last-Event-ID"]
    seen = -1 if last is None else last
    with services.watch.watching(order_id) as moved:
        events = await services.orders.events(order_id, user, sales)
        if events[-1].status in _FINAL and events[-1].seq <= seen:
            return web.Response(status=204)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        response.headers["X-Request-Id"] = call.request[REQUEST_ID]
        await response.prepare(call.request)
        deadline = services.clock.monotonic() + services.settings.limits.event_stream_s
        while True:
            seen = await _send_events(response, events, seen)
            if events[-1].status in _FINAL or services.stopping.is_set() or services.clock.monotonic() > deadline:
                return response
            moved.clear()
            try:
                await asyncio.wait_for(moved.wait(), _HEARTBEAT_S)
            except TimeoutError:
                await response.write(b": still here\n\n")
            events = await services.orders.events(order_id, user, sales)


async def _send_events(response: web.StreamResponse, events: list[OrderEvent], seen: int) -> int:
    for event in events:
        if event.seq > seen:
            data = msgspec.json.encode(event).decode()
            await response.write(f"id: {event.seq}\nevent: status\ndata: {data}\n\n".encode())
            seen = event.seq
    return seen


OPERATIONS = [
    Operation(
        "POST",
        PLACE,
        place_order,
        "Place an order",
        _TAG,
        "shopper",
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
        "shopper",
        {200: ("a page of orders", Page[Order])},
        (503,),
        (
            cursor(UUID),
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
        "shopper",
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
        "shopper",
        {200: ("events until the order can change no more", None), 204: ("nothing more will come", None)},
        (404, 503),
        (
            OrderId,
            Parameter("Last-Event-ID", "header", Annotated[int, msgspec.Meta(ge=0, le=32_767)], "the last event seen"),
        ),
        content_type="text/event-stream",
    ),
    Operation(
        "POST",
        "/v1/orders/{order_id}/cancel",
        cancel_order,
        "Cancel an order",
        _TAG,
        "shopper",
        {200: ("the cancelled order", Order)},
        (404, 409, 503),
        (OrderId,),
    ),
]
