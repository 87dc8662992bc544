"""Midnight: thousands of customers, few units, all orders at the same moment.

All customers open the sale's page and wait. When the last one has arrived they order at once, until the stock is sold
out or they reach the limit. With `--run-time` another customer comes in the place of each who leaves, so that the rush
lasts for all of it; so too with several processes, a browser or a load shape. Otherwise the run ends when the last
customer has left.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import msgspec
from locust import between, events, task
from locust.exception import StopUser
from locust.runners import LocalRunner

from commerce.sales.model import PublicSale
from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.client import ViolationReported
from loadtest.scenarios.customer import SimulatedCustomer
from loadtest.scenarios.run import listen, run
from loadtest.scenarios.sku_option import add_sku_option

_REPEAT_SHARE = 0.1
_ARRIVAL_TIMEOUT_S = 600.0
_FINAL_REFUSALS = ("sold_out", "over_limit", "sale_closed")
_sale = msgspec.json.Decoder(PublicSale)


class StartGate:
    """Event that is set when everybody has arrived; `customers` counts those who have not left."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.customers = 0


gate = StartGate()


class SpikeCustomer(SimulatedCustomer):
    """Orders single units until no more can be had."""

    wait_time = between(0.1, 0.5)

    def on_start(self) -> None:
        super().on_start()
        gate.customers += 1
        with suppress(ViolationReported):
            self.open_sale_page()
        gate.opened.wait(_ARRIVAL_TIMEOUT_S)

    def open_sale_page(self) -> None:
        """Read the public part of the sale."""
        self.browse(f"/v1/sales/{self.options.sale}", _sale, "/v1/sales/{id}")

    @task
    def order_unit(self) -> None:
        """Order one unit; one order in ten is sent twice."""
        order = order_generator.single_item_order(self.options.sale, self.options.sku)
        purchase = self.create_purchase(order, run.offers)
        result = self.place(purchase)
        if order_generator.chance.random() < _REPEAT_SHARE:
            result = self.place(purchase)
        if isinstance(result, ExpectedRefusal) and result.code in _FINAL_REFUSALS:
            self.leave()

    def leave(self) -> None:
        """Make room for another customer, or stop where the run ends with the last one.

        Raises `StopUser` in the latter case.
        """
        runner, shape = self.environment.runner, self.environment.shape_class
        is_controlled = self.environment.web_ui is not None or not isinstance(runner, LocalRunner)
        if is_controlled or shape is not None or self.options.run_time:
            self.become_new_customer()
            self.open_sale_page()
            return
        gate.customers -= 1
        if gate.customers == 0:
            threading.Thread(target=runner.quit).start()  # in this thread it would wait for its own end
        raise StopUser


def _close_gate(**_: object) -> None:
    gate.opened.clear()
    gate.customers = 0


def _open_gate(**_: object) -> None:
    gate.opened.set()


add_sku_option()
listen(events.test_start, _close_gate)
listen(events.spawning_complete, _open_gate)
