"""Orders for support: searches, whole orders, and who has opened them. On the admin port."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import web

from commerce.kernel.moments import Day
from commerce.kernel.paging import Page
from commerce.order_search.model import (
    OrderMatch,
    OrderPart,
    OrderSearch,
    OrderViewList,
    ProviderNumber,
    SearchedTrackingNo,
    StoredStatus,
    UserId,
    WholeOrder,
)
from commerce.order_search.service import OrderFinder
from commerce.order_search.whole_orders import WholeOrders
from gateway.endpoints.parameters import LIMIT, ORDER, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_query = partial(Parameter, location="query")
_FILTERS: tuple[Parameter, ...] = (
    _query(name="order", type=OrderPart, description="an order's id, or at least its first 8 digits"),
    _query(name="user_id", type=UserId, description="the customer"),
    _query(name="tracking_no", type=SearchedTrackingNo, description="of a shipment or a return shipment"),
    _query(name="transaction_no", type=ProviderNumber, description="of a payment or refund: the provider's, or ours"),
    _query(name="status", type=StoredStatus, description="with another condition, such as a day"),
    _query(name="first_day", type=Day, description="ordered on this day in the shop's time zone, or later"),
    _query(name="last_day", type=Day, description="ordered on this day or before; by default `first_day`"),
)


def _whole_orders(call: Call) -> WholeOrders:
    services = call.services
    return WholeOrders(services.db, services.clock, services.orders, services.payments, services.shipping)


async def list_any_orders(call: Call) -> web.Response:
    """Find orders, newest first. All conditions must fit, and an index must serve one of them.

    A page may be short, or empty, while `next` is not null. Names and phone numbers are searched with POST
    `/v1/admin/orders/search`, so that no log of addresses has them.
    """
    values: dict[str, Any] = {parameter.name: call.parameters[parameter.name] for parameter in _FILTERS}
    return await _find(call, OrderSearch(**values, cursor=call.parameters["cursor"]), page_size(call))


async def search_orders(call: Call) -> web.Response:
    """Find orders, newest first, also by a recipient's phone number or name. Nothing is stored.

    All conditions must fit, and an index must serve one of them. A page may be short, or empty, while `next` is not
    null. Recipients are found a moment after the order is stored.
    """
    search: OrderSearch = call.body
    max_items = call.services.settings.limits.page_items
    return await _find(call, search, min(search.limit or max_items, max_items))


async def _find(call: Call, search: OrderSearch, size: int) -> web.Response:
    services = call.services
    finder = OrderFinder(services.db, ZoneInfo(services.settings.shipping.timezone))
    return json_response(await finder.find(search, size))


async def show_any_order(call: Call) -> web.Response:
    """Read any customer's order whole, with all that belongs to it and its story.

    The view is recorded.
    """
    sales = call.services.snapshots.sale_ids()
    return json_response(await _whole_orders(call).read(call.parameters["order_id"], sales, call.staff_actor))


async def list_order_views(call: Call) -> web.Response:
    """List who of the staff has opened an order, the latest first."""
    return json_response(OrderViewList(await _whole_orders(call).list_views(call.parameters["order_id"])))


_PATH = "/v1/admin/orders"
_MATCHES = {200: ("a page of orders", Page[OrderMatch])}
_read = partial(Operation, tag="staff: support", access="support_read")

ADMIN = [
    _read(
        method="GET",
        path=_PATH,
        handler=list_any_orders,
        summary="Find orders",
        answers=_MATCHES,
        problems=(503,),
        parameters=(*_FILTERS, cursor_parameter(UUID), LIMIT),
    ),
    _read(
        method="POST",
        path=f"{_PATH}/search",
        handler=search_orders,
        summary="Find orders by recipient",
        answers=_MATCHES,
        problems=(503,),
        body=OrderSearch,
        has_secrets=True,
    ),
    _read(
        method="GET",
        path=f"{_PATH}/{{order_id}}",
        handler=show_any_order,
        summary="Read any order",
        answers={200: ("the order, its customer, and all that belongs to it", WholeOrder)},
        problems=(404, 503),
        parameters=(ORDER,),
    ),
    _read(
        method="GET",
        access="support_lead",
        path=f"{_PATH}/{{order_id}}/views",
        handler=list_order_views,
        summary="List who has opened an order",
        answers={200: ("the views", OrderViewList)},
        problems=(503,),
        parameters=(ORDER,),
    ),
]
