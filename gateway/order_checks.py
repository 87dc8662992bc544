"""Checks of a customer before an order is placed: screening and waiting rooms."""

from __future__ import annotations

from aiohttp import web

from commerce.kernel.errors import ProblemError
from commerce.orders.model import PlaceOrder
from gateway.order_placement import MAX_TRACEPARENT_CHARS
from gateway.request_origin import origin_of_request
from gateway.services import GatewayServices


async def check_customer(
    services: GatewayServices, request: web.Request, order: PlaceOrder, user_id: str, key: str, room_ticket: str | None
) -> None:
    """Let an order pass if its customer is not screened out and has a turn, or if it is a repeat.

    Raises the refusal, or `NotReady` if Redis cannot tell whether it is a repeat.
    """
    sale_id = order.sale_id
    if services.screening_signals.is_on:
        origin = origin_of_request(request, services.client_addresses)
        services.screening_signals.note_order(sale_id, user_id, origin)
    try:
        if (screened := services.screening_actions.check_order(sale_id, user_id)) is not None:
            raise screened
        services.room_status.check_turn(sale_id, user_id, room_ticket)
    except ProblemError:
        needs_no_turn = screened is None and await services.placement.is_offered(order, user_id)
        if not needs_no_turn and not await services.placement.is_repeat(sale_id, user_id, key):
            raise


def read_traceparent(request: web.Request) -> str:
    """Return the trace context of a request, an empty text if it has none that could be stored."""
    traceparent = request.headers.get("traceparent", "")[:MAX_TRACEPARENT_CHARS]
    return traceparent if traceparent.isascii() else ""  # bytes that are not UTF-8 are no trace context
