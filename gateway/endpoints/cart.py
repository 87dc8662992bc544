"""The cart: read it, put, change and delete its lines, and merge a guest's into a customer's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Annotated

import msgspec
from aiohttp import web

from commerce.cart.guest_ids import MAX_GUEST_ID_CHARS
from commerce.cart.model import Cart, CartLineChange, CartLineInput, CartOwner
from gateway.checkout_run import change_cart
from gateway.endpoints.parameters import SALE, SKU
from gateway.operations import Call, Operation, Parameter, json_response

_PATH = "/v1/cart"
_LINE_PATH = f"{_PATH}/lines/{{sale_id}}/{{sku}}"
CART_ID_HEADER = "Cart-Id"
_GuestId = Annotated[str, msgspec.Meta(max_length=MAX_GUEST_ID_CHARS)]
_CART_ID = Parameter(
    name=CART_ID_HEADER,
    location="header",
    type=_GuestId,
    description="`cart_id` of a guest's cart; ignored with a customer's token",
)
_GUEST_CART_ID = Parameter(
    name=CART_ID_HEADER,
    location="header",
    type=_GuestId,
    description="`cart_id` of the guest's cart",
    required=True,
)
_IF_MATCH = Parameter(
    name="If-Match",
    location="header",
    type=Annotated[str, msgspec.Meta(pattern=r'^"?[0-9]{1,15}"?\Z')],
    description="the version of the cart that the client knows; nothing is changed if it is another",
    invalid_message="not the version of a cart, such as 7",
)


def _find_owner(call: Call) -> CartOwner:
    """Return the caller's cart: that of a customer's token, or else the guest's."""
    services = call.services
    authorization = call.request.headers.get("Authorization")
    if authorization is not None:
        return CartOwner(services.auth.identify_customer(authorization).subject)
    return services.shopping.carts.find_guest(call.parameters[CART_ID_HEADER])


def _admit(call: Call) -> tuple[CartOwner, int | None]:
    """Check overload and rates of a change. Returns the caller's cart, and the version that it is to have."""
    services = call.services
    services.shedder.check(perf_counter(), call.request.headers.get("Authorization"), None)
    owner = _find_owner(call)
    # A colon is in no user's id. Guests without a cart have the buckets of their address only.
    name = owner.user_id or (f"cart:{owner.cart_id}" if owner.cart_id else None)
    rate_limits = services.admission.rate_limits
    if name is not None:
        rate_limits.users.take(name)
    client = services.client_addresses.find(call.request)
    if client.bucket is not None:
        client.bucket.take(services.clock.monotonic())
    if name is None and client.address is not None:
        rate_limits.guest_carts.take(client.address)
    version = call.parameters[_IF_MATCH.name]
    return owner, None if version is None else int(version.strip('"'))


def _answer(cart: Cart) -> web.Response:
    headers = {"Cache-Control": "no-store", "ETag": f'"{cart.version}"'}
    if cart.cart_id is not None:
        headers[CART_ID_HEADER] = cart.cart_id
    return json_response(cart, headers=headers)


async def _answer_change(call: Call, owner: CartOwner, change: Callable[[], Awaitable[Cart]]) -> web.Response:
    return _answer(await change_cart(call.services, owner, change))


async def get_cart(call: Call) -> web.Response:
    """Read your cart with the prices and free units of this moment. It reserves nothing.

    Customers send their token, guests the `cart_id` that the first change has answered.
    """
    return _answer(await call.services.shopping.carts.read(_find_owner(call)))


async def put_cart_line(call: Call) -> web.Response:
    """Put a line into the cart, or replace the one of this sale and SKU.

    Members that are left out get defaults. The present price is the accepted one. A guest without a cart gets
    one, whose `cart_id` is in the answer.
    """
    owner, version = _admit(call)
    sale_id, sku = call.parameters["sale_id"], call.parameters["sku"]
    carts = call.services.shopping.carts
    return await _answer_change(call, owner, lambda: carts.put_line(owner, sale_id, sku, call.body, version))


async def change_cart_line(call: Call) -> web.Response:
    """Change a line; members that are left out stay.

    A new quantity or `accept_price` accepts the present price.
    """
    owner, version = _admit(call)
    sale_id, sku = call.parameters["sale_id"], call.parameters["sku"]
    carts = call.services.shopping.carts
    return await _answer_change(call, owner, lambda: carts.change_line(owner, sale_id, sku, call.body, version))


async def delete_cart_line(call: Call) -> web.Response:
    """Delete a line. A repeat changes nothing."""
    owner, version = _admit(call)
    sale_id, sku = call.parameters["sale_id"], call.parameters["sku"]
    carts = call.services.shopping.carts
    return await _answer_change(call, owner, lambda: carts.delete_line(owner, sale_id, sku, version))


async def merge_cart(call: Call) -> web.Response:
    """Merge a guest's cart into yours, when the guest logs in.

    A line of both carts gets the larger quantity, capped by the limits. Warnings name what was cut, and lines that
    stay with the guest because your cart is full. A repeat merges nothing more and has the same warnings.
    """
    carts, user_id, guest_id = call.services.shopping.carts, call.identity.subject, call.parameters[CART_ID_HEADER]
    return await _answer_change(call, CartOwner(user_id), lambda: carts.merge(user_id, guest_id))


_operation = partial(Operation, tag="cart", answers={200: ("the cart as it is now", Cart)})

OPERATIONS = [
    _operation(
        method="GET",
        path=_PATH,
        handler=get_cart,
        summary="Read the cart",
        access="anyone",
        problems=(401, 404, 503),
        parameters=(_CART_ID,),
    ),
    _operation(
        method="PUT",
        path=_LINE_PATH,
        handler=put_cart_line,
        summary="Put a line",
        access="anyone",
        problems=(401, 404, 409, 410, 429, 503),
        parameters=(SALE, SKU, _CART_ID, _IF_MATCH),
        body=CartLineInput,
    ),
    _operation(
        method="PATCH",
        path=_LINE_PATH,
        handler=change_cart_line,
        summary="Change a line",
        access="anyone",
        problems=(401, 404, 409, 429, 503),
        parameters=(SALE, SKU, _CART_ID, _IF_MATCH),
        body=CartLineChange,
    ),
    _operation(
        method="DELETE",
        path=_LINE_PATH,
        handler=delete_cart_line,
        summary="Delete a line",
        access="anyone",
        problems=(401, 404, 409, 429, 503),
        parameters=(SALE, SKU, _CART_ID, _IF_MATCH),
    ),
    _operation(
        method="POST",
        path=f"{_PATH}/merge",
        handler=merge_cart,
        summary="Merge a guest's cart",
        access="customer",
        problems=(404, 409, 429, 503),
        parameters=(_GUEST_CART_ID,),
        admit=True,
    ),
]
