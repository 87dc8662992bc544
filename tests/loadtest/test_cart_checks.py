"""Checks of carts in load tests: every broken promise is found, and no correct answer is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.cart.cart_quotes import CartQuote
from commerce.cart.model import Cart, CartLine, CartSale, CheckoutOrder, CheckoutResult, CheckoutState, OrderProblem
from commerce.kernel.money import Money
from commerce.orders.model import OrderPrice
from commerce.orders.quotes import Quote, QuotedLine
from loadtest.scenarios.cart_log import CartLog, Checkout
from loadtest.scenarios.checks import CheckedResponse, ExpectedRefusal, Violation
from loadtest.scenarios.order_generator import ADDRESSES
from loadtest.scenarios.purchase_log import PurchaseLog
from tests.loadtest.test_checks import ID, OFFERS, OTHER, answer, problem

NOW = datetime.now(UTC)
PRICE = OrderPrice(33_600, 5_000, 800, 0)
TOTAL = Money(29_400, "CNY")


def shown(version: int, price: OrderPrice = PRICE, line_price: int = 16_800, **units: int) -> Cart:
    """A cart whose quote has a freight of 800, which the cart itself does not."""
    lines = [
        CartLine(sku, sku, quantity, True, False, line_price, line_price, None, None, NOW)
        for sku, quantity in units.items()
    ]
    price = msgspec.structs.replace(price, freight=0)
    total = Money(price.subtotal - price.discount, "CNY")
    sales = [CartSale("s", "t", None, NOW, None, "CNY", lines, price, total, [])] if units else []
    return Cart(None, version, sales, [total] if units else [], [], None)


def quoted(version: int = 1, price: OrderPrice = PRICE, total: Money = TOTAL, quantity: int = 2) -> CartQuote:
    line = QuotedLine(0, "tea", quantity, 0, 16_800, 16_800, 5_000, 28_600, None, None)
    quote = Quote("s", NOW, [line], price, total, True, [], [], [], NOW.date())
    return CartQuote(version, [quote], [total])


def placed(order_id: UUID = ID, total: Money = TOTAL, **changes: Any) -> CheckoutResult:
    order = CheckoutOrder("s", "placed", order_id, total, NOW + timedelta(minutes=15), None)
    return CheckoutResult(ID, "done", [msgspec.structs.replace(order, **changes)], shown(2))


def refused(code: str, status: int = 409) -> CheckoutResult:
    order = CheckoutOrder("s", "refused", None, None, None, OrderProblem(code, status, "t", "d", "tea"))
    return CheckoutResult(ID, "done", [order], shown(2, tea=2))


def fill() -> CartLog:
    log = CartLog(PurchaseLog(Counter()), "s", OFFERS)
    assert isinstance(log.check_cart({"tea": 2}, answer(200, shown(1, tea=2))), Cart)
    return log


def confirm(log: CartLog) -> Checkout:
    quote = log.check_quote(answer(200, quoted()))
    assert isinstance(quote, CartQuote)
    return log.plan_checkout(quote, ADDRESSES[:1], [])


def test_correct_answers_are_accepted() -> None:
    log = fill()
    assert isinstance(log.check_cart({"tea": 2}, answer(200, shown(1, tea=2))), Cart)
    checkout = confirm(log)
    placing = CheckoutResult(ID, "placing", [CheckoutOrder("s", "pending", None, None, None, None)], shown(1, tea=2))
    waiting = log.check_checkout(checkout, answer(202, placing, retry_after="1"))
    assert waiting == ExpectedRefusal("placing", 1.0)
    in_progress = problem(409, "checkout_in_progress", retry_after="1")
    assert log.check_checkout(checkout, in_progress) == ExpectedRefusal("checkout_in_progress", 1.0)
    assert log.check_checkout(checkout, answer(200, placed())) == placed()
    assert checkout.purchase.order_id == ID
    assert checkout.purchase.total == TOTAL
    assert (log.units, log.check_checkout(checkout, answer(200, placed()))) == ({}, placed())
    assert isinstance(log.check_cart({}, answer(200, shown(2))), Cart)


def test_refused_order_leaves_the_cart() -> None:
    log = fill()
    checkout = confirm(log)
    assert log.check_checkout(checkout, answer(200, refused("sold_out"))) == refused("sold_out")
    assert checkout.purchase.placed is None
    assert log.units == {"tea": 2}
    assert isinstance(log.check_cart({}, answer(200, shown(3))), Cart)


@pytest.mark.parametrize(
    ("cart", "text"),
    [
        (shown(2, tea=2), "the cart has another version"),
        (shown(1, tea=3), "the cart has other lines than were put"),
        (shown(1, line_price=1, tea=2), "the cart shows another price than the offers"),
        (shown(1, OrderPrice(1, 0, 0, 0), tea=2), "a subtotal is not what the offers say"),
        (
            msgspec.structs.replace(shown(1, tea=2), totals=[TOTAL]),
            "the totals of the cart are not those of its sales",
        ),
        (
            msgspec.structs.replace(shown(1, tea=2), checkout=CheckoutState(ID, 1)),
            "the cart has a checkout that nobody began",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_cart_is_a_violation(cart: Cart, text: str) -> None:
    with pytest.raises(Violation, match=f"^{text}$"):
        fill().check_cart({"tea": 2}, answer(200, cart))


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        (quoted(version=2), "the quote is of another version of the cart"),
        (quoted(quantity=1), "the quote has other lines than the cart"),
        (quoted(total=Money(1, "CNY")), "a price does not add up to its total"),
        (quoted(price=OrderPrice(1, 0, 0, 0)), "a subtotal is not what the offers say"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_quote_is_a_violation(quote: CartQuote, text: str) -> None:
    with pytest.raises(Violation, match=f"^{text}$"):
        fill().check_quote(answer(200, quote))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: answer(200, placed(total=Money(1, "CNY"))), "the total is not the confirmed one"),
        (lambda: answer(200, placed(order_id=None)), "a placed order has no id or no time to pay"),
        (lambda: answer(200, placed(outcome="pending")), "pending in a checkout that is done"),
        (lambda: answer(202, placed(), retry_after="1"), "202 for a checkout that is done"),
        (lambda: answer(200, refused("total_changed")), "refused with total_changed, which may not be here"),
        (lambda: answer(200, msgspec.structs.replace(placed(), cart=shown(2, tea=2))), "the cart has other lines"),
        (lambda: answer(200, msgspec.structs.replace(placed(), orders=[])), "a checkout of one sale has not one order"),
        (lambda: problem(409, "sold_out", sku="tea"), "refused with 409 sold_out, which may not be here"),
        (lambda: problem(409, "checkout_in_progress"), "409 checkout_in_progress without Retry-After"),
    ],
)
def test_wrong_answer_to_checkout_is_a_violation(make: Callable[[], CheckedResponse], text: str) -> None:
    log = fill()
    with pytest.raises(Violation, match=f"^{text}"):
        log.check_checkout(confirm(log), make())


def test_second_order_of_a_checkout_is_a_violation() -> None:
    log = fill()
    checkout = confirm(log)
    log.check_checkout(checkout, answer(200, placed()))
    for second in (answer(200, placed(OTHER)), answer(200, refused("sold_out"))):
        with pytest.raises(Violation, match="a repeated checkout has other orders"):
            log.check_checkout(checkout, second)
