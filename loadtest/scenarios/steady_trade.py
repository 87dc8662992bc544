"""An ordinary day: mixed baskets, several addresses and payments, some cancellations."""

from __future__ import annotations

import time

from locust import task

from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.customer import SimulatedCustomer
from loadtest.scenarios.order_generator import chance
from loadtest.scenarios.run import run

_REPEAT_SHARE = 0.05
_READ_SHARE = 0.5
_CANCEL_SHARE = 0.15


class TradingCustomer(SimulatedCustomer):
    """Orders mixed baskets at a human pace."""

    @task
    def trade(self) -> None:
        """Place an order; sometimes repeat, read or cancel it."""
        offers = self.log.filter_available(run.offers) or run.offers
        purchase = self.create_purchase(order_generator.mixed_order(self.options.sale, offers), offers)
        if isinstance(self.place(purchase), ExpectedRefusal):
            return
        if chance.random() < _REPEAT_SHARE:
            self.place(purchase)
        if chance.random() < _READ_SHARE:
            self.read(purchase)
        if chance.random() < _CANCEL_SHARE:
            time.sleep(self.wait_time() * chance.random())  # some are stored by then, some are not
            self.cancel(purchase)
