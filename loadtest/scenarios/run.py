"""State of one run of locust: options, offers, promised units, violations, and exit status.

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
from loadtest.scenarios.checks import ExpectedRefusal, Violation, check_tagged
from loadtest.scenarios.client import (
    CONNECT_TIMEOUT_S,
    NETWORK_TIMEOUT_S,
    CheckingClient,
    Request,
    ViolationReported,
)
from loadtest.scenarios.order_generator import DEMO_SALE, chance

_TOKEN_TTL_S = 86_400
_MAX_OFFER_PAGES = 200
_MAX_LOGGED_VIOLATIONS = 20
_MAX_PRINTED_SKUS = 10
_offers = msgspec.json.Decoder(Page[Offer])
_logger = logging.getLogger(__name__)


class LocustRun:
    """State of one locust process. `promised` counts units by SKU; `violations` counts broken promises."""

    def __init__(self) -> None:
        self.auth = AuthSettings()
        self.offers: dict[str, Offer] = {}
        self.promised: Counter[str] = Counter()
        self.violations = 0
        self._name = ""
        self._numbers = count(1)

    def begin(self) -> None:
        """Load the settings and choose new user ids.

        Call it after locust has forked: processes must not share users. Raises `SettingsError`, or `ValueError` if
        no key can sign tokens.
        """
        self._name = uuid4().hex[:8]
        chance.seed()
        self.auth = load().auth
        self.create_token()

    def create_token(self) -> str:
        """Return a token of a new user. Raises `ValueError` if no key can sign."""
        user_id = f"lt-{self._name}-{next(self._numbers)}"
        return sign_token(self.auth, SystemClock(), user_id, "floodgate", (), _TOKEN_TTL_S)

    def report(self, violation: Violation) -> None:
        """Count a violation; the first ones are logged with their details."""
        self.violations += 1
        if self.violations <= _MAX_LOGGED_VIOLATIONS:
            _logger.error("broken promise: %s: %s", violation.text, violation.detail)


run = LocustRun()
_worker_promises: dict[str, dict[str, Any]] = {}


def listen(hook: EventHook, listener: Callable[..., None]) -> None:
    """Add a listener; locust's own method is not typed."""
    hook.add_listener(listener)  # type: ignore[no-untyped-call]


def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument("--sale", default=DEMO_SALE, help=f"id of the sale to order in (default: {DEMO_SALE})")
    parser.add_argument("--think-s", type=float, default=3.0, help="mean pause between two tasks (default: 3)")
    parser.add_argument("--stored-within-s", type=float, default=60.0, help="time until an order must be stored")


def _begin_run(**_: object) -> None:
    try:
        run.begin()
    except (SettingsError, ValueError) as error:
        sys.exit(f"cannot create tokens: {error}")


def _read_offers(environment: Environment, **_: object) -> None:
    """Read the prices and limits that answers are checked against, before the first customer starts."""
    assert environment.parsed_options is not None
    path, cursor = f"/v1/sales/{environment.parsed_options.sale}/offers", ""
    if not environment.host:
        sys.exit("cannot start: the shop's address is missing; give it with --host http://127.0.0.1:8080")
    session = FastHttpSession(
        environment.host,
        environment.events.request,
        user=None,
        network_timeout=NETWORK_TIMEOUT_S,
        connection_timeout=CONNECT_TIMEOUT_S,
    )
    client = CheckingClient(session, None, run.report)
    run.offers.clear()
    try:
        for _page in range(_MAX_OFFER_PAGES):
            request = Request("GET", path + cursor, "/v1/sales/{id}/offers")
            page = client.send_until_final(request, partial(check_tagged, decoder=_offers))
            if isinstance(page, ExpectedRefusal):
                break
            run.offers.update((offer.sku, offer) for offer in page.value.items)
            if page.value.next is None:
                break
            cursor = f"?cursor={quote(page.value.next, safe='')}"
    except ViolationReported:
        pass  # the log has the violation
    if not run.offers:
        sys.exit(f"cannot start: {environment.host}{path} has no offers; check --host and --sale")


def _send_to_master(data: dict[str, Any], **_: object) -> None:
    data["promises"] = {"units": dict(run.promised), "violations": run.violations}


def _receive_from_worker(client_id: str, data: dict[str, Any], **_: object) -> None:
    _worker_promises[client_id] = data["promises"]


def _print_summary(environment: Environment, **_: object) -> None:
    promised, violations = run.promised.copy(), run.violations
    for promises in _worker_promises.values():
        promised.update(promises["units"])
        violations += promises["violations"]
    if violations:
        environment.process_exit_code = 1
    if isinstance(environment.runner, WorkerRunner):
        return  # the master prints it for all
    top_skus = ", ".join(f"{sku} {units}" for sku, units in promised.most_common(_MAX_PRINTED_SKUS))
    print(f"units promised in all: {promised.total()}{f' ({top_skus})' if top_skus else ''}")
    if violations:
        print(f"broken promises: {violations}; the log has the first of them")


listen(events.init_command_line_parser, _add_options)
listen(events.init, _begin_run)
listen(events.test_start, _read_offers)
listen(events.report_to_master, _send_to_master)
listen(events.worker_report, _receive_from_worker)
listen(events.quitting, _print_summary)
