"""Requests of simulated customers about their carts. Each answer is checked by the record of the cart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import quote

import msgspec

from commerce.cart.cart_quotes import CartQuote
from commerce.cart.model import Cart, CartLineChange, CartLineInput, CheckoutPlan, CheckoutResult, SaleCheckout
from commerce.kernel.address import Address
from loadtest.scenarios.cart_log import CartLog, Checkout
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.client import CheckingClient, Request

_CART, _LINE_NAME = "/v1/cart", "/v1/cart/lines/{sale_id}/{sku}"
_QUOTE, _CHECKOUT = f"{_CART}/quote", f"{_CART}/checkout"


class CustomerCart:
    """Sends the requests of one customer about the cart, until their outcomes are final."""

    def __init__(self, api: CheckingClient, log: CartLog) -> None:
        self._api = api
        self._log = log

    def read(self) -> Cart | ExpectedRefusal:
        """Look at the cart."""
        return self._send(Request("GET", _CART, _CART), self._log.units)

    def put(self, sku: str, quantity: int) -> Cart | ExpectedRefusal:
        """Put a line, or replace the one of this SKU."""
        return self._change("PUT", sku, CartLineInput(quantity), {**self._log.units, sku: quantity})

    def change(self, sku: str, quantity: int) -> Cart | ExpectedRefusal:
        """Change the quantity of a line."""
        return self._change("PATCH", sku, CartLineChange(quantity), {**self._log.units, sku: quantity})

    def delete(self, sku: str) -> Cart | ExpectedRefusal:
        """Delete a line."""
        left = {other: quantity for other, quantity in self._log.units.items() if other != sku}
        return self._change("DELETE", sku, None, left)

    def quote(self, ship_to: Sequence[Address]) -> CartQuote | ExpectedRefusal:
        """Ask what a checkout would cost now, with the lines sent to the addresses in turn."""
        sale = SaleCheckout(self._log.sale_id, self._log.list_addresses(ship_to))
        body = msgspec.json.encode(CheckoutPlan(ship_to=[*ship_to], sales=[sale])).decode()
        return self._api.send_until_final(Request("POST", _QUOTE, _QUOTE, body=body), self._log.check_quote)

    def check_out(self, checkout: Checkout) -> CheckoutResult | ExpectedRefusal:
        """Place the order of a checkout, or repeat it."""
        name = _CHECKOUT if checkout.result is None else f"{_CHECKOUT} (repeated)"
        request = Request("POST", _CHECKOUT, name, body=checkout.body)
        return self._api.send_until_final(request, partial(self._log.check_checkout, checkout))

    def _change(
        self, method: str, sku: str, body: CartLineInput | CartLineChange | None, units: Mapping[str, int]
    ) -> Cart | ExpectedRefusal:
        path = f"{_CART}/lines/{quote(self._log.sale_id, safe='')}/{quote(sku, safe='')}"
        text = None if body is None else msgspec.json.encode(body).decode()
        return self._send(Request(method, path, _LINE_NAME, body=text), units)

    def _send(self, request: Request, units: Mapping[str, int]) -> Cart | ExpectedRefusal:
        """Send a request after which the cart has so many units."""
        return self._api.send_until_final(request, partial(self._log.check_cart, units))
