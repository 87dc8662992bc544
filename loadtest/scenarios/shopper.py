"""What the crowds have in common: who a shopper is and what it can do."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec
from locust import FastHttpUser
from locust.exception import CatchResponseError

from commerce.kernel.paging import Page
from commerce.orders.model import Order, PlacedOrder, PlaceOrder
from commerce.sales.model import Offer
from loadtest.scenarios import purchase_log
from loadtest.scenarios.checks import Refused, Tagged, Violation, tagged
from loadtest.scenarios.client import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S, Broken, Client, Request
from loadtest.scenarios.order_generator import chance
from loadtest.scenarios.purchase_log import Purchase, PurchaseLog
from loadtest.scenarios.run import run

T = TypeVar("T")
_ORDERS_A_SHOPPER = 100
_POLL_S = 0.1


class Shopper(FastHttpUser):
    """Somebody with a token, a connection, and a memory of what was promised."""

    abstract = True
    network_timeout = NETWORK_TIMEOUT_S
    connection_timeout = CONNECT_TIMEOUT_S
    concurrency = 1
    max_redirects = 0
    max_retries = 0  # what is repeated, and when, is the client's business

    def on_start(self) -> None:
        self.arrive()

    def arrive(self) -> None:
        """Be somebody new. Nobody buys on for ever: what a shopper remembers has a bound."""
        self.shop = Client(self.client, run.token(), run.report)
        self.ledger = PurchaseLog(run.promised)
        self.seen: dict[str, Tagged[Any]] = {}

    @property
    def options(self) -> Namespace:
        options: Namespace = self.environment.parsed_options
        return options

    def wait_time(self) -> float:
        """As people do: between half and one and a half times `--think-s`."""
        return float(self.options.think_s * chance.uniform(0.5, 1.5))

    def want(self, order: PlaceOrder, offers: Mapping[str, Offer]) -> Purchase:
        """An order to be sent, under a new key."""
        if len(self.ledger.purchases) >= _ORDERS_A_SHOPPER:
            self.arrive()
        return purchase_log.purchase(order, offers, f"key-{uuid4().hex}")

    def send(self, bought: Purchase) -> PlacedOrder | Refused:
        """Send an order until the outcome is clear, or send it again: always the same key and the same body."""
        request = Request(
            "POST",
            "/v1/orders",
            "/v1/orders",
            names={200: "/v1/orders (replayed)"},
            headers={"Idempotency-Key": bought.key},
            body=bought.body,
        )
        verdict = self.shop.insist(request, partial(self.ledger.ordered, bought), bought.lost_sight)
        if bought.unclear:
            self.ledger.certain = False
        return verdict

    def read(self, bought: Purchase) -> Order | Refused:
        """Read an order by its id."""
        request = Request("GET", f"/v1/orders/{bought.order_id}", "/v1/orders/{id}")
        return self.shop.insist(request, partial(purchase_log.read, bought))

    def read_by_key(self, bought: Purchase) -> Order | Refused:
        """Read an order by its key, as after a lost answer."""
        path = f"/v1/orders?idempotency_key={quote(bought.key, safe='')}"
        return self.shop.insist(Request("GET", path, "/v1/orders?idempotency_key"), partial(purchase_log.found, bought))

    def list_own(self, bought: Purchase) -> Page[Order] | Refused:
        """Look at the own orders, of which this is one and stored."""
        return self.shop.insist(Request("GET", "/v1/orders", "/v1/orders"), partial(self.ledger.listed, bought))

    def cancel(self, bought: Purchase) -> Order | Refused:
        """Cancel an order that is not paid."""
        bought.given_up = True
        request = Request("POST", f"/v1/orders/{bought.order_id}/cancel", "/v1/orders/{id}/cancel")
        return self.shop.insist(request, partial(purchase_log.cancelled, bought))

    def look(
        self, path: str, decoder: msgspec.json.Decoder[T], name: str | None = None, right: Callable[[T], bool] = bool
    ) -> T | Refused:
        """Read something of the catalogue; what was seen before is sent again only if it has changed.

        `right` tells whether it is what was asked for.
        """
        known: Tagged[T] | None = self.seen.get(path)
        name = name or path
        request = Request(
            "GET",
            path,
            name,
            names={304: f"{name} (not changed)"},
            headers={"If-None-Match": known.tag} if known else {},
        )
        verdict = self.shop.insist(request, partial(tagged, decoder=decoder, right=right, known=known))
        if isinstance(verdict, Refused):
            return verdict
        self.seen[path] = verdict
        return verdict.value

    def until_stored(self, bought: Purchase) -> None:
        """Read an order until it is stored. How long that takes has a line of its own; too long is a violation."""
        started, within_s = time.monotonic(), self.options.stored_within_s
        late = None
        while not bought.stored and late is None:
            self.read(bought)
            if not bought.stored:
                time.sleep(_POLL_S)
                if time.monotonic() - started > within_s:
                    late = Violation("an order was not stored in time", f"{bought.order_id}: {within_s} s")
        self.environment.events.request.fire(
            request_type="WAIT",
            name="until it is stored",
            response_time=(time.monotonic() - started) * 1000,
            response_length=0,
            exception=CatchResponseError(late.text) if late else None,
            context={},
        )
        if late:
            run.report(late)
            raise Broken from late
