"""Midnight: thousands of customers, few units, all orders at the same moment.

All customers open the sale's page and wait. When the last one has arrived they order at once, until the stock is sold
out or they reach the limit. When the last one has left, the run ends.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import Any

import msgspec
from locust import between, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from commerce.sales.model import PublicSale
from loadtest.scenarios import order_generator
from loadtest.scenarios.checks import ExpectedRefusal
from loadtest.scenarios.client import ViolationReported
from loadtest.scenarios.customer import SimulatedCustomer
from loadtest.scenarios.run import listen, run

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
            self.browse(f"/v1/sales/{self.options.sale}", _sale, "/v1/sales/{id}")
        gate.opened.wait(_ARRIVAL_TIMEOUT_S)

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
        """Stop this customer. The last one ends the run, unless a browser or a master controls it."""
        gate.customers -= 1
        runner, has_web_ui = self.environment.runner, self.environment.web_ui is not None
        if gate.customers == 0 and isinstance(runner, LocalRunner) and not has_web_ui:
            threading.Thread(target=runner.quit).start()  # in this thread it would wait for its own end
        raise StopUser


def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument(
        "--sku", default=order_generator.DEMO_SKU, help=f"the SKU to order (default: {order_generator.DEMO_SKU})"
    )


def _close_gate(environment: Environment, **_: object) -> None:
    assert environment.parsed_options is not None
    if environment.parsed_options.sku not in run.offers:
        sys.exit(f"cannot start: the sale does not offer {environment.parsed_options.sku}; give another --sku")
    gate.opened.clear()
    gate.customers = 0


def _open_gate(**_: object) -> None:
    gate.opened.set()


listen(events.init_command_line_parser, _add_options)
listen(events.test_start, _close_gate)
listen(events.spawning_complete, _open_gate)
