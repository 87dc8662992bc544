"""Midnight: thousands of shoppers, few units, everybody at once.

All come to the sale's page and wait. Once the last of them is there they order, all at the same moment, until the goods
are sold out or they have as many as one may buy. When the last has left, the run ends.
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
from loadtest.scenarios.checks import Refused
from loadtest.scenarios.client import Broken
from loadtest.scenarios.run import listen, run
from loadtest.scenarios.shopper import Shopper

_REPEATED = 0.1
_LAST_ARRIVAL_S = 600.0
_OVER = ("sold_out", "over_limit", "sale_closed")
_sale = msgspec.json.Decoder(PublicSale)


class StartGate:
    """Closed until everybody is there; `inside` counts those who have not left."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside = 0


doors = StartGate()


class Hunter(Shopper):
    """Wants one unit, and then as many as there are."""

    wait_time = between(0.1, 0.5)

    def on_start(self) -> None:
        super().on_start()
        doors.inside += 1
        with suppress(Broken):
            self.look(f"/v1/sales/{self.options.sale}", _sale, "/v1/sales/{id}")
        doors.opened.wait(_LAST_ARRIVAL_S)

    @task
    def hunt(self) -> None:
        """Order one unit; one order in ten is sent twice."""
        bought = self.want(order_generator.single_item_order(self.options.sale, self.options.sku), run.offers)
        verdict = self.send(bought)
        if order_generator.chance.random() < _REPEATED:
            verdict = self.send(bought)
        if isinstance(verdict, Refused) and verdict.code in _OVER:
            self.leave()

    def leave(self) -> None:
        """Go home. The last one ends the run, unless somebody watches in a browser or from a master."""
        doors.inside -= 1
        runner, watched = self.environment.runner, self.environment.web_ui is not None
        if doors.inside == 0 and isinstance(runner, LocalRunner) and not watched:
            threading.Thread(target=runner.quit).start()  # not from here, where it would wait for itself
        raise StopUser


def _options(parser: Any, **_: object) -> None:
    parser.add_argument(
        "--sku", default=order_generator.DEMO_SKU, help=f"what everybody wants (default: {order_generator.DEMO_SKU})"
    )


def _close(environment: Environment, **_: object) -> None:
    assert environment.parsed_options is not None
    if environment.parsed_options.sku not in run.offers:
        sys.exit(f"the sale does not offer {environment.parsed_options.sku}")
    doors.opened.clear()
    doors.inside = 0


def _open(**_: object) -> None:
    doors.opened.set()


listen(events.init_command_line_parser, _options)
listen(events.test_start, _close)
listen(events.spawning_complete, _open)
