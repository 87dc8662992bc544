"""The suspected customers in this process's memory, and what they may do.

Only those whose score leads to an action are kept, up to a limit. They are polled once a second, and only changes are
read; once an hour all are, so that deleted ones are forgotten. While Postgres is unavailable the last state is used.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime
from math import ceil
from typing import Literal, NamedTuple, get_args

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Database
from commerce.screening.errors import JoinDelayed, RefusedByScreening
from commerce.screening.model import Suspect
from commerce.screening.service import Screening
from config.screening import ScreeningSettings
from config.settings import Settings
from gateway import metrics
from gateway.screening_signals import ScreeningSignals

_logger = logging.getLogger(__name__)
_INTERVAL_S, _FULL_READ_INTERVAL_S = 1.0, 3_600.0
_PAGE_SIZE = 500  # more would hold up the orders of other customers
_MAX_LOGGED_PER_INTERVAL = 20
Action = Literal["log", "proof_of_work", "wait", "refuse"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class _ActedOn(NamedTuple):
    """A customer who is acted on, unless staff have cleared him."""

    action: Action
    suspect: Suspect
    cleared_until_ms: int


class _SaleSuspects:
    """The customers of one sale who are acted on, and their number by action.

    `position` is the version and user up to which they were read.
    """

    __slots__ = ("counts", "customers", "is_first", "position", "sale_id")

    def __init__(self, sale_id: str) -> None:
        self.sale_id = sale_id
        self.customers: dict[str, _ActedOn] = {}
        self.counts: Counter[Action] = Counter()
        self.position = (0, "")
        self.is_first = True


class ScreeningActions:
    """Decides on joins and orders of suspected customers.

    `is_refusing` tells whether any customer's orders are refused: without one, an order costs nothing here.
    """

    def __init__(
        self, screening: Screening, signals: ScreeningSignals, settings: ScreeningSettings, clock: Clock
    ) -> None:
        self._screening = screening
        self._signals = signals
        self._settings = settings
        self._clock = clock
        min_scores: dict[Action, int | None] = {
            "refuse": settings.refuse_min_score,
            "wait": settings.wait_min_score,
            "proof_of_work": settings.proof_of_work_min_score,
            "log": settings.log_min_score,
        }
        self._min_scores = [(min_score, action) for action, min_score in min_scores.items() if min_score is not None]
        self._min_score = min((min_score for min_score, _ in self._min_scores), default=0)
        self._sales: dict[str, _SaleSuspects] = {}
        self._logged = self._dropped = 0
        self._full_read_at = float("-inf")
        self.is_refusing = False

    def check_order(self, sale_id: str, user_id: str) -> ProblemError | None:
        """Return the refusal of an order, None if it may go on.

        Orders are never delayed and never take a proof.
        """
        customer = self._find(sale_id, user_id)
        if customer is None or customer.action != "refuse":
            return None
        metrics.SCREENING_ACTIONS.labels("refuse").inc()
        return _refusal()

    def check_join(self, sale_id: str, user_id: str, opens_ms: int, has_number: bool) -> bool:
        """Check that a customer may join now. Returns True if that takes a proof of work.

        `has_number`: his ticket has a number whose turn is not over, so that joining again only tells it. Raises
        `RefusedByScreening` or `JoinDelayed`.
        """
        customer = self._find(sale_id, user_id)
        if customer is None or (has_number and customer.action != "refuse"):
            return False
        action, suspect, _ = customer
        now_ms = self._clock.now_ms()
        if action == "wait":
            raised_ms = 0 if suspect.raised_at is None else to_ms(suspect.raised_at)
            until_ms = max(opens_ms, raised_ms) + self._settings.wait_s * 1000
            if now_ms >= until_ms:
                return False
            metrics.SCREENING_ACTIONS.labels(action).inc()
            raise _delay(from_ms(until_ms), ceil((until_ms - now_ms) / 1000))
        metrics.SCREENING_ACTIONS.labels(action).inc()
        if action == "refuse":
            raise _refusal()
        if action == "log" and self._logged < _MAX_LOGGED_PER_INTERVAL:
            self._logged += 1
            reasons = " ".join(suspect.signals)
            context = {"sale_id": sale_id, "user_id": user_id, "score": suspect.score, "reason": reasons}
            _logger.info("a suspected customer joins", extra=context)
        return action == "proof_of_work"

    def _find(self, sale_id: str, user_id: str) -> _ActedOn | None:
        sale = self._sales.get(sale_id)
        customer = None if sale is None else sale.customers.get(user_id)
        return None if customer is None or self._clock.now_ms() < customer.cleared_until_ms else customer

    async def refresh(self) -> None:
        """Read the screened sales, and what has changed of their customers."""
        sales = await self._screening.list_sales()
        self._signals.set_sales(sales)
        if not self._min_scores:
            return
        for sale_id in self._sales.keys() - {sale.sale_id for sale in sales}:
            del self._sales[sale_id]
        now = self._clock.monotonic()
        is_full = now >= self._full_read_at
        try:
            for sale in sales:
                suspects = self._sales.get(sale.sale_id)
                if suspects is None or is_full:
                    suspects = _SaleSuspects(sale.sale_id)
                if sale.version >= suspects.position[0]:
                    await self._read_changes(suspects, sale.version)
                self._sales[sale.sale_id] = suspects  # a new one only when it has been read in full
        finally:
            self._count()
        if is_full:
            self._full_read_at = now + _FULL_READ_INTERVAL_S

    async def _read_changes(self, suspects: _SaleSuspects, version: int) -> None:
        """Read the changes up to a version, page by page. After an error the next call reads on."""
        while True:
            page = await self._screening.list_suspects(
                suspects.sale_id, suspects.position, self._min_score, suspects.is_first, _PAGE_SIZE
            )
            others = sum(len(sale.customers) for sale in self._sales.values() if sale.sale_id != suspects.sale_id)
            for suspect in page:
                self._keep(suspects, suspect, self._settings.acted_on_customers - others)
            if len(page) < _PAGE_SIZE:
                break
            suspects.position = page[-1].version, page[-1].user_id
        # All changes of this version were committed before it was read; later ones may have come in part.
        suspects.position, suspects.is_first = (version + 1, ""), False

    def _keep(self, suspects: _SaleSuspects, suspect: Suspect, max_customers: int) -> None:
        action = next((action for min_score, action in self._min_scores if suspect.score >= min_score), None)
        before = suspects.customers.pop(suspect.user_id, None)
        if before is not None:
            suspects.counts[before.action] -= 1
        if action is None:
            return
        if before is None and len(suspects.customers) >= max_customers:
            self._dropped += 1
            return
        suspects.counts[action] += 1
        cleared_until_ms = 0 if suspect.cleared_until is None else to_ms(suspect.cleared_until)
        suspects.customers[suspect.user_id] = _ActedOn(action, suspect, cleared_until_ms)

    def _count(self) -> None:
        """Set the gauges, and `is_refusing`."""
        counts: Counter[Action] = Counter()
        for sale in self._sales.values():
            counts.update(sale.counts)
        for action in ACTIONS:
            metrics.SCREENING_SUSPECTS.labels(action).set(counts[action])
        self.is_refusing = counts["refuse"] > 0
        dropped, self._dropped = self._dropped, 0
        metrics.SCREENING_DROPPED.labels("customers").inc(dropped)
        if dropped:
            context = {"count": dropped, "limit": self._settings.acted_on_customers}
            _logger.warning("too many suspected customers to act on all of them", extra=context)

    async def refresh_forever(self) -> None:
        """Refresh until cancelled, also through outages of the database."""
        while self._signals.is_on:
            try:
                await self.refresh()
                self._logged = 0
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot read the suspected customers", error)
            await self._clock.sleep(_INTERVAL_S)


def _refusal() -> RefusedByScreening:
    return RefusedByScreening(
        "this account looks like one of many that one program uses; if that is wrong, ask the shop's staff, who can "
        "clear it"
    )


def _delay(until: datetime, retry_after_s: int) -> JoinDelayed:
    return JoinDelayed(
        f"this account may join from {until:%Y-%m-%dT%H:%M:%SZ} on; if that is wrong, ask the shop's staff",
        until,
        retry_after_s,
    )


async def open_screening(
    settings: Settings, db: Database, clock: Clock
) -> tuple[Screening, ScreeningSignals, ScreeningActions]:
    """Read the suspected customers before one of them could join or order."""
    screening = Screening(db, clock)
    signals = ScreeningSignals(screening, settings.screening, clock)
    actions = ScreeningActions(screening, signals, settings.screening, clock)
    if signals.is_on:
        await actions.refresh()
    return screening, signals, actions
