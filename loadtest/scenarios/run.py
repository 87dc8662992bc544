"""One run of locust: its options, the sale as it was at the start, what was promised, and how it ends.

A master adds up what its workers were promised.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
from locust import events
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook
from locust.runners import WorkerRunner

from commerce.kernel.clock import SystemClock
from commerce.kernel.paging import Page
from commerce.sales.model import Offer
from config.settings import AuthSettings, SettingsError, load
from gateway.auth import sign_token
from loadtest.scenarios.checks import Refused, Violation, tagged
from loadtest.scenarios.client import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S, Broken, Client, Request
from loadtest.scenarios.order_generator import DEMO_SALE, chance

_TOKEN_TTL_S = 86_400
_OFFER_PAGES = 200
_LOGGED = 20
_offers = msgspec.json.Decoder(Page[Offer])
_logger = logging.getLogger(__name__)


class Run:
    """What one locust process knows. `promised` counts units by SKU; `violations` counts broken promises."""

    def __init__(self) -> None:
        self.auth = AuthSettings()
        self.offers: dict[str, Offer] = {}
        self.promised: Counter[str] = Counter()
        self.violations = 0
        self._name = ""
        self._numbers = count(1)

    def begin(self) -> None:
        """To be called once locust has forked, so that no two processes are the same shoppers."""
        self._name = uuid4().hex[:8]
        chance.seed()
        self.auth = load().auth
        self.token()

    def token(self) -> str:
        """A token of a user that nobody else is. Raises `ValueError` if no key can sign."""
        return sign_token(self.auth, SystemClock(), f"lt-{self._name}-{next(self._numbers)}", "floodgate", (), _TOKEN_TTL_S)

    def report(self, violation: Violation) -> None:
        """Count it; the first ones go to the log with their details."""
        self.violations += 1
        if self.violations <= _LOGGED:
            _logger.error("broken promise: %s: %s", violation.text, violation.detail)


run = Run()
_workers: dict[str, dict[str, Any]] = {}


def listen(hook: EventHook, listener: Callable[..., None]) -> None:
    """Have a listener called; locust's own way is not typed."""
    hook.add_listener(listener)  # type: ignore[no-untyped-call]


def _options(parser: Any, **_: object) -> None:
    parser.add_argument("--sale", default=DEMO_SALE, help=f"id of the sale to buy from (default: {DEMO_SALE})")
    parser.add_argument("--think-s", type=float, default=3.0, help="mean time between two errands (default: 3)")
    parser.add_argument("--stored-within-s", type=float, default=60.0, help="an order must be stored by then")


def _prepare(**_: object) -> None:
    try:
        run.begin()
    except (SettingsError, ValueError) as error:
        sys.exit(f"no tokens can be made: {error}")


def _read_offers(environment: Environment, **_: object) -> None:
    """Before anybody comes: the prices that totals are checked against, and the limits."""
    assert environment.parsed_options is not None
    path, cursor = f"/v1/sales/{environment.parsed_options.sale}/offers", ""
    if not environment.host:
        sys.exit("say where the shop is: --host http://127.0.0.1:8080")
    session = FastHttpSession(
        environment.host,
        environment.events.request,
        user=None,
        network_timeout=NETWORK_TIMEOUT_S,
        connection_timeout=CONNECT_TIMEOUT_S,
    )
    client = Client(session, None, run.report)
    run.offers.clear()
    try:
        for _page in range(_OFFER_PAGES):
            request = Request("GET", path + cursor, "/v1/sales/{id}/offers")
            page = client.insist(request, partial(tagged, decoder=_offers))
            if isinstance(page, Refused):
                break
            run.offers.update((offer.sku, offer) for offer in page.value.items)
            if page.value.next is None:
                break
            cursor = f"?cursor={quote(page.value.next, safe='')}"
    except Broken:
        pass  # the log says what it was
    if not run.offers:
        sys.exit(f"nothing is offered at {environment.host}{path}")


def _to_master(data: dict[str, Any], **_: object) -> None:
    data["promises"] = {"units": dict(run.promised), "violations": run.violations}


def _from_worker(client_id: str, data: dict[str, Any], **_: object) -> None:
    _workers[client_id] = data["promises"]


def _conclude(environment: Environment, **_: object) -> None:
    promised, violations = run.promised.copy(), run.violations
    for worker in _workers.values():
        promised.update(worker["units"])
        violations += worker["violations"]
    if violations:
        environment.process_exit_code = 1
    if isinstance(environment.runner, WorkerRunner):
        return  # the master says it for all
    most = ", ".join(f"{sku} {units}" for sku, units in promised.most_common(10))
    print(f"units promised in all: {promised.total()}{f' ({most})' if most else ''}")
    if violations:
        print(f"broken promises: {violations}; the log has the first of them")


listen(events.init_command_line_parser, _options)
listen(events.init, _prepare)
listen(events.test_start, _read_offers)
listen(events.report_to_master, _to_master)
listen(events.worker_report, _from_worker)
listen(events.quitting, _conclude)
