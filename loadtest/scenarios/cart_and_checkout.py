"""Carts that are filled over several visits, and left or checked out at the total that was shown."""

from __future__ import annotations

import time

from locust import task

from commerce.cart.cart_quotes import CartQuote
from commerce.orders.model import Method, Tender
from loadtest.scenarios import order_generator
from loadtest.scenarios.cart_log import CartLog, Checkout
from loadtest.scenarios.carts import CustomerCart
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.customer import SimulatedCustomer
from loadtest.scenarios.order_generator import chance
from loadtest.scenarios.run import run

_MAX_SKUS, _MAX_UNITS = 5, 3
_MAX_CHANGES = 3
_LEAVE_SHARE = 0.05
_CHECKOUT_SHARE = 0.4
_REPEAT_SHARE = 0.3
_TWO_ADDRESSES_SHARE = 0.25
_METHODS: tuple[Method, ...] = ("alipay", "wechatpay", "balance")


class CartCustomer(SimulatedCustomer):
    """Comes back to the same cart several times, and orders what is in it."""

    def become_new_customer(self) -> None:
        """Take a new user id, an empty record and an empty cart."""
        super().become_new_customer()
        self.cart_log = CartLog(self.log, self.options.sale, run.offers)
        self.cart = CustomerCart(self.api, self.cart_log)

    @task
    def visit_cart(self) -> None:
        """Read the cart and change it; then leave it permanently, check it out, or come back later.

        After an answer that never came nobody knows what the cart has, so another customer goes on.
        """
        is_known = not isinstance(self.cart.read(), ExpectedRefusal) and self.change_cart()
        if not is_known or chance.random() < _LEAVE_SHARE:
            self.become_new_customer()
        elif self.cart_log.units and chance.random() < _CHECKOUT_SHARE:
            self.check_out()

    def change_cart(self) -> bool:
        """Put, change and delete some lines. Returns False if it is not known what became of the last one."""
        for _ in range(chance.randint(1, _MAX_CHANGES)):
            offers = self.log.filter_available(run.offers) or run.offers
            sku = chance.choice(list(offers))
            units, limit = self.cart_log.units, offers[sku].limit_per_user
            quantity = chance.randint(1, min(_MAX_UNITS, limit or _MAX_UNITS))
            if sku not in units and len(units) < _MAX_SKUS:
                result = self.cart.put(sku, quantity)
            elif sku in units and chance.random() < 0.5:
                result = self.cart.change(sku, quantity)
            else:
                result = self.cart.delete(chance.choice(list(units)))
            if isinstance(result, ExpectedRefusal):
                return False
        return True

    def check_out(self) -> None:
        """Confirm the total that is shown; then repeat the checkout, and read the order until it is stored."""
        addresses = 2 if len(self.cart_log.units) > 1 and chance.random() < _TWO_ADDRESSES_SHARE else 1
        ship_to = chance.sample(order_generator.ADDRESSES, addresses)
        quoted = self.cart.quote(ship_to)
        if isinstance(quoted, ExpectedRefusal):
            return
        time.sleep(self.wait_time() * chance.random())
        checkout = self.cart_log.plan_checkout(quoted, ship_to, _choose_payments(quoted))
        if isinstance(self.cart.check_out(checkout), ExpectedRefusal):
            self.become_new_customer()
            return
        run.orders["placed" if checkout.purchase.placed else "refused"] += 1
        if chance.random() < _REPEAT_SHARE:
            self.cart.check_out(checkout)
        if checkout.purchase.placed:
            self.follow(checkout)
        else:
            self.remove_refused(checkout)

    def follow(self, checkout: Checkout) -> None:
        """Read the order until it is stored, and find it in the list of the customer's orders."""
        self.wait_until_stored(checkout.purchase)
        self.list_orders(checkout.purchase)
        if chance.random() < _REPEAT_SHARE:
            self.cart.check_out(checkout)

    def remove_refused(self, checkout: Checkout) -> None:
        """Delete the line for which an order was refused, or leave a cart that cannot be ordered."""
        assert checkout.result is not None
        problem = checkout.result.orders[0].problem
        sku = problem.sku if problem else None
        if sku not in self.cart_log.units or isinstance(self.cart.delete(sku), ExpectedRefusal):
            self.become_new_customer()


def _choose_payments(quoted: CartQuote) -> list[Tender]:
    amount = quoted.totals[0].amount
    return [Tender(chance.choice(_METHODS), amount)] if amount and chance.random() < 0.5 else []
