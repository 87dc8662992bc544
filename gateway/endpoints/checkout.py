"""The checkout of a cart, and its quote."""

from __future__ import annotations

from aiohttp import web

from commerce.cart.cart_quotes import CartQuote
from commerce.cart.model import CheckoutPlan, CheckoutRequest, CheckoutResult
from gateway.checkout_quotes import quote_cart
from gateway.checkout_run import CheckoutRun
from gateway.operations import Call, Operation, json_response

_NO_STORE = {"Cache-Control": "no-store"}
_REPEAT_AFTER_S = "1"


async def quote_checkout(call: Call) -> web.Response:
    """Price a checkout as it would be placed now. Nothing is reserved or changed.

    Confirm its `version` and `totals` with the checkout. Without an address the freight
    is not known.
    """
    return json_response(await quote_cart(call.services, call.identity.subject, call.body), headers=_NO_STORE)


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
        path="/v1/cart/quote",
        handler=quote_checkout,
        summary="Quote the cart",
        tag="cart",
        access="customer",
        answers={200: ("the quotes of its orders", CartQuote)},
        problems=(404, 409, 429, 503),
        body=CheckoutPlan,
        admit=True,
    ),
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
