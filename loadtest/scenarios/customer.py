"""Simulated customer: the base class of all scenarios' users."""

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
from loadtest.scenarios.checks import ExpectedRefusal, TaggedValue, Violation, check_tagged
from loadtest.scenarios.client import (
    CONNECT_TIMEOUT_S,
    NETWORK_TIMEOUT_S,
    CheckingClient,
    Request,
    ViolationReported,
)
from loadtest.scenarios.order_generator import chance
from loadtest.scenarios.purchase_log import Purchase, PurchaseLog
from loadtest.scenarios.run import run

T = TypeVar("T")
_MAX_ORDERS_PER_CUSTOMER = 100
_POLL_INTERVAL_S = 0.1


def create_order_request(purchase: Purchase, name: str = "/v1/orders") -> Request:
    """Return the request that places or repeats an order; the statistics list it under `name`."""
    return Request(
        "POST",
        "/v1/orders",
        name,
        names={200: f"{name} (replayed)"},
        headers={"Idempotency-Key": purchase.key},
        body=purchase.body,
    )


class SimulatedCustomer(FastHttpUser):
    """A customer with a token, a connection, and a record of what was promised."""

    abstract = True
    network_timeout = NETWORK_TIMEOUT_S
    connection_timeout = CONNECT_TIMEOUT_S
    concurrency = 1
    max_redirects = 0
    max_retries = 0  # CheckingClient decides what is repeated, and when

    def on_start(self) -> None:
        self.become_new_customer()

    def become_new_customer(self) -> None:
        """Take a new user id and an empty record: this bounds what one customer remembers."""
        self.api = CheckingClient(self.client, run.create_token(), run.report)
        self.log = PurchaseLog(run.promised)
        self.cached: dict[str, TaggedValue[Any]] = {}

    @property
    def options(self) -> Namespace:
        options: Namespace = self.environment.parsed_options
        return options

    def wait_time(self) -> float:
        """Return a pause between half and one and a half times `--think-s`."""
        return float(self.options.think_s * chance.uniform(0.5, 1.5))

    def create_purchase(self, order: PlaceOrder, offers: Mapping[str, Offer]) -> Purchase:
        """Return an order that is to be sent, under a new key."""
        if len(self.log.purchases) >= _MAX_ORDERS_PER_CUSTOMER:
            self.become_new_customer()
        return purchase_log.create_purchase(order, offers, f"key-{uuid4().hex}")

    def place(self, purchase: Purchase) -> PlacedOrder | ExpectedRefusal:
        """Place or repeat an order until the outcome is final, always with the same key and body."""
        check = partial(self.log.check_placed, purchase)
        result = self.api.send_until_final(create_order_request(purchase), check, purchase.mark_outcome_unknown)
        if purchase.is_outcome_unknown:
            self.log.is_certain = False
        return result

    def read(self, purchase: Purchase) -> Order | ExpectedRefusal:
        """Read an order by its id."""
        request = Request("GET", f"/v1/orders/{purchase.order_id}", "/v1/orders/{id}")
        return self.api.send_until_final(request, partial(purchase_log.check_read, purchase))

    def read_by_key(self, purchase: Purchase) -> Order | ExpectedRefusal:
        """Read an order by its key, as after a lost answer."""
        path = f"/v1/orders?idempotency_key={quote(purchase.key, safe='')}"
        request = Request("GET", path, "/v1/orders?idempotency_key")
        return self.api.send_until_final(request, partial(purchase_log.check_found_by_key, purchase))

    def list_orders(self, purchase: Purchase) -> Page[Order] | ExpectedRefusal:
        """List the customer's orders, which contain this stored one."""
        request = Request("GET", "/v1/orders", "/v1/orders")
        return self.api.send_until_final(request, partial(self.log.check_own_list, purchase))

    def cancel(self, purchase: Purchase) -> Order | ExpectedRefusal:
        """Cancel an unpaid order."""
        purchase.is_cancel_requested = True
        request = Request("POST", f"/v1/orders/{purchase.order_id}/cancel", "/v1/orders/{id}/cancel")
        return self.api.send_until_final(request, partial(purchase_log.check_cancelled, purchase))

    def browse(
        self,
        path: str,
        decoder: msgspec.json.Decoder[T],
        name: str | None = None,
        is_right: Callable[[T], bool] = bool,
    ) -> T | ExpectedRefusal:
        """Read a page of the catalog with the ETag of the last read.

        `is_right` returns True if the value is the one that was requested.
        """
        cached: TaggedValue[T] | None = self.cached.get(path)
        name = name or path
        request = Request(
            "GET",
            path,
            name,
            names={304: f"{name} (not changed)"},
            headers={"If-None-Match": cached.tag} if cached else {},
        )
        check = partial(check_tagged, decoder=decoder, is_right=is_right, cached=cached)
        result = self.api.send_until_final(request, check)
        if isinstance(result, ExpectedRefusal):
            return result
        self.cached[path] = result
        return result.value

    def wait_until_stored(self, purchase: Purchase) -> None:
        """Read an order until it is stored. Raises `ViolationReported` after `--stored-within-s`."""
        limit_s = self.options.stored_within_s
        self.wait_until("stored", purchase, lambda _order: purchase.is_stored, limit_s)

    def wait_until(
        self, state: str, purchase: Purchase, is_reached: Callable[[Order | ExpectedRefusal], bool], limit_s: float
    ) -> None:
        """Read an order until it is in a state.

        The time has its own line in the statistics. Too long a time is a violation and raises `ViolationReported`.
        """
        started = time.monotonic()
        violation = None
        while not is_reached(self.read(purchase)) and violation is None:
            time.sleep(_POLL_INTERVAL_S)
            if time.monotonic() - started > limit_s:
                violation = Violation(f"an order was not {state} in time", f"{purchase.order_id}: {limit_s} s")
        self.environment.events.request.fire(
            request_type="WAIT",
            name=f"until it is {state}",
            response_time=(time.monotonic() - started) * 1000,
            response_length=0,
            exception=CatchResponseError(violation.text) if violation else None,
            context={},
        )
        if violation:
            run.report(violation)
            raise ViolationReported from violation
