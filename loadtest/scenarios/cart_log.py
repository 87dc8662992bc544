"""Record of what one customer has put into the cart, and checks of every answer against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from commerce.cart.cart_quotes import CartQuote
from commerce.cart.model import Cart, CheckoutLine, CheckoutOrder, CheckoutRequest, CheckoutResult, SaleCheckout
from commerce.kernel.address import Address
from commerce.orders.model import OrderLineInput, PlacedOrder, PlaceOrder, Tender
from commerce.sales.model import Offer
from loadtest.scenarios.checks import (
    CART_REFUSALS,
    CHECKOUT_REFUSALS,
    ORDER_REFUSALS,
    REFUSALS,
    CheckedResponse,
    ExpectedRefusal,
    check_refusal,
    decode,
    decode_success,
    expect,
    read_retry_after,
)
from loadtest.scenarios.purchase_log import Purchase, PurchaseLog, check_price, create_purchase

_DURABILITY: Literal["fsync"] = "fsync"  # the answer to a checkout does not have it
_cart = msgspec.json.Decoder(Cart)
_quote = msgspec.json.Decoder(CartQuote)
_result = msgspec.json.Decoder(CheckoutResult)


@dataclass(slots=True)
class Checkout:
    """A checkout that a customer confirms. `result` is its first answer that is final."""

    purchase: Purchase
    body: str = field(repr=False)
    result: CheckoutResult | None = None


class CartLog:
    """The cart of one customer in one sale: `units` by SKU as the last answer had them.

    Nobody else changes it, so lines, prices and version of each answer are known beforehand.
    """

    def __init__(self, purchases: PurchaseLog, sale_id: str, offers: Mapping[str, Offer]) -> None:
        self.units: dict[str, int] = {}
        self.sale_id = sale_id
        self._purchases = purchases
        self._offers = offers
        self._version = 0
        self._skus: list[str] = []

    def check_cart(self, units: Mapping[str, int], response: CheckedResponse) -> Cart | ExpectedRefusal:
        """Check the answer to a request after which the cart has so many units."""
        if refusal := check_refusal(response, CART_REFUSALS):
            return refusal
        cart = decode_success(_cart, response)
        self._note(cart, units, self._version + (units != self.units))
        return cart

    def plan_checkout(self, quoted: CartQuote, ship_to: Sequence[Address], payments: Sequence[Tender]) -> Checkout:
        """Confirm a quote."""
        lines = self.list_addresses(ship_to)
        request = CheckoutRequest(
            ship_to=[*ship_to],
            sales=[SaleCheckout(self.sale_id, lines, [*payments])],
            version=quoted.version,
            expected_totals=quoted.totals,
        )
        ordered = [OrderLineInput(line.sku, self.units[line.sku], line.ship_to) for line in lines]
        order = PlaceOrder(self.sale_id, ordered, [*ship_to], [*payments])
        purchase = create_purchase(order, self._offers, f"cart-{quoted.version}")
        purchase.quoted_total = quoted.totals[0]
        return Checkout(purchase, msgspec.json.encode(request).decode())

    def list_addresses(self, ship_to: Sequence[Address]) -> list[CheckoutLine]:
        """Return the lines in their order, sent to the addresses in turn."""
        return [CheckoutLine(sku, number % len(ship_to)) for number, sku in enumerate(self._skus)]

    def check_quote(self, response: CheckedResponse) -> CartQuote | ExpectedRefusal:
        """Check the quote of the cart as it is."""
        if refusal := check_refusal(response, CHECKOUT_REFUSALS):
            return refusal
        quoted = decode_success(_quote, response)
        version = f"{quoted.version} for {self._version}"
        expect(quoted.version == self._version, "the quote is of another version of the cart", version)
        expect(len(quoted.quotes) == 1, "the quote has not one order", len(quoted.quotes))
        [order] = quoted.quotes
        lines = {line.sku: line.quantity for line in order.lines}
        expect(lines == self.units, "the quote has other lines than the cart", lines)
        check_price(order.price, order.total, self._subtotal(self.units))
        expect(quoted.totals == [order.total], "the totals of the quote are not those of its order", quoted.totals)
        return quoted

    def check_checkout(self, checkout: Checkout, response: CheckedResponse) -> CheckoutResult | ExpectedRefusal:
        """Check the answer to a checkout or to its repeat, and record what it promises."""
        first = checkout.result
        if refusal := check_refusal(response, CHECKOUT_REFUSALS):
            return refusal
        expect(response.status in (200, 202), f"{response.status} for a checkout")
        result = decode(_result, response)
        if response.status == 202:
            expect(result.state == "placing", "202 for a checkout that is done")
            expect(first is None, "a checkout that was done is not done any more")
            return ExpectedRefusal("placing", read_retry_after(response, "placing"))
        expect(result.state == "done", "200 for a checkout that is not done")
        if first is not None:
            is_same = (result.checkout_id, result.orders) == (first.checkout_id, first.orders)
            expect(is_same, "a repeated checkout has other orders", f"{result.orders} for {first.orders}")
            self._note(result.cart, self.units, self._version)
            return result
        expect(len(result.orders) == 1, "a checkout of one sale has not one order", len(result.orders))
        self._check_order(checkout.purchase, result.orders[0], response.body)
        left = {} if result.orders[0].outcome == "placed" else self.units
        self._note(result.cart, left, self._version + 1)
        checkout.result = result
        return result

    def _note(self, cart: Cart, units: Mapping[str, int], version: int) -> None:
        """Check that a cart has these units and this version, and keep them."""
        lines = [line for sale in cart.sales for line in sale.lines]
        shown = {line.sku: line.quantity for line in lines}
        expect(shown == units, "the cart has other lines than were put", f"{shown} for {units}")
        expect(cart.version == version, "the cart has another version", f"{cart.version} for {version}")
        expect(cart.checkout is None, "the cart has a checkout that nobody began", cart.checkout)
        for line in lines:
            price = self._offers[line.sku].price
            is_right = line.price == line.accepted_price == price
            expect(is_right, "the cart shows another price than the offers", f"{line} for {price}")
        for sale in cart.sales:
            expect(sale.sale_id == self.sale_id, "the cart has lines of another sale", sale.sale_id)
            expect(sale.price is not None, "the cart has no price")
            assert sale.price is not None
            check_price(sale.price, sale.total, self._subtotal(units))
        totals = [sale.total for sale in cart.sales]
        expect(cart.totals == totals, "the totals of the cart are not those of its sales", cart.totals)
        self.units, self._version, self._skus = dict(units), version, [line.sku for line in lines]

    def _check_order(self, purchase: Purchase, order: CheckoutOrder, body: bytes) -> None:
        """Check the outcome of an order, and record what it promises."""
        expect(order.sale_id == self.sale_id, "the order is in another sale", order.sale_id)
        expect(order.outcome in ("placed", "refused"), f"{order.outcome} in a checkout that is done")
        if order.outcome == "refused":
            expect(order.problem is not None, "a refused order has no problem")
            assert order.problem is not None
            code = order.problem.code
            expect(code in ORDER_REFUSALS, f"refused with {code}, which may not be here", order.problem.detail)
            expect(REFUSALS[code] == order.problem.status, f"the status does not fit the code: {order.problem}")
            self._purchases.check_refused(purchase, ExpectedRefusal(code, sku=order.problem.sku))
            return
        expect(order.total == purchase.total, "the total is not the confirmed one", f"{order.total}, {purchase.total}")
        is_whole = order.order_id is not None and order.pay_by is not None
        expect(is_whole, "a placed order has no id or no time to pay", order)
        assert order.order_id is not None
        assert order.pay_by is not None
        placed = PlacedOrder(order.order_id, "accepted", self.sale_id, purchase.total, order.pay_by, _DURABILITY)
        self._purchases.record(purchase, placed, body)

    def _subtotal(self, units: Mapping[str, int]) -> int:
        return sum(quantity * self._offers[sku].price for sku, quantity in units.items())
