"""The checkout of a cart."""

from __future__ import annotations

from aiohttp import web

from commerce.cart.model import CheckoutRequest, CheckoutResult
from gateway.checkout_run import CheckoutRun
from gateway.operations import Call, Operation, json_response

_NO_STORE = {"Cache-Control": "no-store"}
_REPEAT_AFTER_S = "1"


async def check_out_cart(call: Call) -> web.Response:
    """Order the selected lines of your cart: one order per sale, each all or nothing.

    Repeat the same request whenever its outcome is unknown or `pending`: it has the same orders, never second ones. The
    orders' keys are derived from the cart and its version, so no Idempotency-Key is needed. What was placed leaves the
    cart, what was refused stays in it.
    """
    result = await CheckoutRun(call.services, call.request, call.identity.subject, call.body).run()
    if result.state == "done":
        return json_response(result, headers=_NO_STORE)
    return json_response(result, 202, {"Retry-After": _REPEAT_AFTER_S, **_NO_STORE})


OPERATIONS = [
    Operation(
        method="POST",
        path="/v1/cart/checkout",
        handler=check_out_cart,
        summary="Check out the cart",
        tag="cart",
        access="customer",
        answers={
            200: ("each order is placed or refused", CheckoutResult),
            202: ("some orders are not decided: repeat the request", CheckoutResult),
        },
        problems=(404, 409, 429, 503),
        body=CheckoutRequest,
        admit=True,
    ),
]
