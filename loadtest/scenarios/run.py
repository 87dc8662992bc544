"""State of one run of locust: options, offers, promised units, violations, and exit status.

A master adds up what its workers were promised.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

from locust import events, stats
from locust.env import Environment
from locust.event import EventHook
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from commerce.kernel.bind import local_url
from commerce.kernel.clock import SystemClock
from commerce.sales.model import Offer
from config.auth import AuthSettings
from config.settings import SettingsError, load
from gateway.auth import sign_token
from loadtest.scenarios.checks import Violation
from loadtest.scenarios.csv_rows import CompleteCsvWriter
from loadtest.scenarios.order_generator import DEMO_SALE, chance
from loadtest.scenarios.preflight import Preflight
from loadtest.scenarios.stepped_shape import SteppedShape, check_steps
from loadtest.set_up import SET_UP_STATUS, SetUpFault

_TOKEN_TTL_S = 86_400
_MAX_LOGGED_VIOLATIONS = 20
_MAX_PRINTED_SKUS = 10
_QUIT_TIMEOUT_S = 60.0
_logger = logging.getLogger(__name__)


class LocustRun:
    """State of one locust process.

    `promised` counts units by SKU; `orders` counts orders by what became of them, where a scenario follows them;
    `violations` counts broken promises. `start_checks` run before the first customer starts, after those of the sale.
    """

    def __init__(self) -> None:
        self.auth = AuthSettings()
        self.sandbox_url = ""
        self.offers: dict[str, Offer] = {}
        self.promised: Counter[str] = Counter()
        self.orders: Counter[str] = Counter()
        self.violations = 0
        self.start_checks: list[Callable[[argparse.Namespace], None]] = [check_steps]
        self._is_prepared = False
        self._is_aborted = False
        self._name = ""
        self._numbers = count(1)

    def begin(self) -> None:
        """Load the settings and choose new user ids. Raises `SetUpFault` if no key can sign tokens.

        Call it after locust has forked: processes must not share users.
        """
        self._name = uuid4().hex[:8]
        chance.seed()
        try:
            settings = load()
            self.auth, self.sandbox_url = settings.auth, local_url("127.0.0.1", settings.sandbox.port)
            self.create_token()
        except (SettingsError, ValueError) as error:
            raise SetUpFault(f"no token can be created: {error}") from None

    def prepare(self, environment: Environment) -> None:
        """Check the shop, and read the prices and limits that answers are checked against.

        A fault ends the process. Customers must not find out one by one that the key, the sale or the server is wrong:
        that is no broken promise.
        """
        options = environment.parsed_options
        assert options is not None
        try:
            preflight = Preflight(environment.host, "--host")
            self.offers = preflight.read_offers(options.sale)
            preflight.check_token(self.create_token())
            for check in self.start_checks:
                check(options)
        except SetUpFault as fault:
            _print_fault(fault)
            _end(environment, SET_UP_STATUS)
        except Violation as violation:
            self.report(violation)
            _end(environment, 1)
        self._is_prepared = True

    def prepare_once(self, environment: Environment, **_: object) -> None:
        """Prepare a start, unless it was prepared when the process began."""
        if not self._is_prepared:
            self.prepare(environment)
        self._is_prepared = False  # a later start, from the browser, is prepared again

    def abort(self, environment: Environment, fault: SetUpFault) -> None:
        """End a run that turns out to measure nothing: one line, and the status of a set-up fault."""
        if self._is_aborted:
            return
        self._is_aborted = True
        _print_fault(fault)
        _quit(environment, SET_UP_STATUS)

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


def positive_number(text: str) -> float:
    """Read an option that is a finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _positive_count(text: str) -> int:
    positive_number(text)
    return int(text)


def _print_fault(fault: SetUpFault) -> None:
    print(f"cannot run: {fault}", file=sys.stderr, flush=True)


def _quit(environment: Environment, status: int) -> None:
    environment.process_exit_code = status
    assert environment.runner is not None
    threading.Thread(target=environment.runner.quit).start()  # in this thread it would wait for its own end


def _end(environment: Environment, status: int) -> None:
    """End the process before a customer starts; a master ends its workers, too, which would stay."""
    if not isinstance(environment.runner, MasterRunner):
        sys.exit(status)
    _quit(environment, status)
    time.sleep(_QUIT_TIMEOUT_S)  # locust kills this thread when it has quit


def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument("--sale", default=DEMO_SALE, help=f"id of the sale to order in (default: {DEMO_SALE})")
    parser.add_argument(
        "--think-s", type=positive_number, default=3.0, help="mean pause between two tasks (default: 3)"
    )
    parser.add_argument(
        "--stored-within-s", type=positive_number, default=60.0, help="time until an order must be stored"
    )
    parser.add_argument(
        "--step-users", type=_positive_count, help="let the users rise in steps of this size up to --users"
    )
    parser.add_argument("--step-s", type=positive_number, default=30.0, help="seconds of each step (default: 30)")


def _begin_run(environment: Environment, **_: object) -> None:
    """Prepare a run of one process without a browser, so that a fault ends it before locust starts."""
    options = environment.parsed_options
    assert options is not None
    try:
        run.begin()
    except SetUpFault as fault:
        _print_fault(fault)
        sys.exit(SET_UP_STATUS)
    if options.step_users and not isinstance(environment.runner, WorkerRunner):
        environment.shape_class = SteppedShape(options)
        environment.shape_class.runner = environment.runner
    if options.headless and isinstance(environment.runner, LocalRunner):
        run.prepare(environment)
    # gevent sets timers by the time that its loop saw last. That was before the imports, and --run-time would be
    # shorter by the seconds they took. Any pause updates that time.
    time.sleep(0.001)


def _send_to_master(data: dict[str, Any], **_: object) -> None:
    data["promises"] = {"units": dict(run.promised), "orders": dict(run.orders), "violations": run.violations}


def _receive_from_worker(client_id: str, data: dict[str, Any], **_: object) -> None:
    _worker_promises[client_id] = data["promises"]


def _print_summary(environment: Environment, **_: object) -> None:
    promised, orders, violations = run.promised.copy(), run.orders.copy(), run.violations
    for promises in _worker_promises.values():
        promised.update(promises["units"])
        orders.update(promises["orders"])
        violations += promises["violations"]
    if violations:
        environment.process_exit_code = 1
    if isinstance(environment.runner, WorkerRunner):
        return  # the master prints it for all
    top_skus = ", ".join(f"{sku} {units}" for sku, units in promised.most_common(_MAX_PRINTED_SKUS))
    print(f"units promised in all: {promised.total()}{f' ({top_skus})' if top_skus else ''}")
    if orders:
        print("orders: " + ", ".join(f"{state} {number}" for state, number in orders.items()))
    if violations:
        print(f"broken promises: {violations}; the log has the first of them")


listen(events.init_command_line_parser, _add_options)
listen(events.init, _begin_run)
listen(events.test_start, run.prepare_once)
stats.StatsCSVFileWriter = CompleteCsvWriter  # type: ignore[misc]
listen(events.report_to_master, _send_to_master)
listen(events.worker_report, _receive_from_worker)
listen(events.quitting, _print_summary)
