"""An ordinary day: mixed baskets of one to five SKUs, several addresses and payments, now and then a cancellation."""

from __future__ import annotations

import time

from locust import task

from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import Refused
from loadtest.scenarios.order_generator import chance
from loadtest.scenarios.run import run
from loadtest.scenarios.shopper import Shopper

_REPEATED = 0.05
_READ = 0.5
_CANCELLED = 0.15


class Customer(Shopper):
    """Buys this and that, at the pace of people."""

    @task
    def trade(self) -> None:
        """Order; perhaps send it twice, look at it, cancel it."""
        offers = self.ledger.in_reach(run.offers) or run.offers
        bought = self.want(order_generator.mixed_order(self.options.sale, offers), offers)
        if isinstance(self.send(bought), Refused):
            return
        if chance.random() < _REPEATED:
            self.send(bought)
        if chance.random() < _READ:
            self.read(bought)
        if chance.random() < _CANCELLED:
            time.sleep(self.wait_time() * chance.random())  # some are stored by then, some are not
            self.cancel(bought)
