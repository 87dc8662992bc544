"""A carrier inside the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, CancelOutcome, TrackingEvent

_numbers = count(1)


@dataclass
class FakeCarrier:
    """A carrier inside the test. It books each booking once, or does as `next_outcomes` prescribes.

    An exception is raised; "lost" books and loses the reply. Calls wait for `gate` if it is set."""

    name: str
    accepts_bookings: bool = True
    collects_returns: bool = True
    is_external: bool = True
    needs_subscription: bool = False
    min_poll_interval_s: float = 0
    next_outcomes: list[Exception | str] = field(default_factory=list)
    bookings: dict[UUID, str] = field(default_factory=dict)
    requests: Counter[UUID] = field(default_factory=Counter)
    cancelled_bookings: set[UUID] = field(default_factory=set)
    handed_over: set[UUID] = field(default_factory=set)
    subscribed: list[str] = field(default_factory=list)
    tracking: dict[str, list[TrackingEvent]] = field(default_factory=dict)
    polls: list[str] = field(default_factory=list)
    cancel_calls: int = 0
    gate: asyncio.Event | None = None
    booking_requests: list[BookingRequest] = field(default_factory=list)

    @property
    def system(self) -> str:
        return self.name

    def _raise_next(self) -> None:
        outcome = self.next_outcomes.pop(0) if self.next_outcomes else None
        if isinstance(outcome, Exception):
            raise outcome

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        self.requests[request.booking_id] += 1
        self.booking_requests.append(request)
        outcome = self.next_outcomes.pop(0) if self.next_outcomes else None
        tracking_no = ""
        if not isinstance(outcome, Exception):
            tracking_no = self.bookings.setdefault(request.booking_id, f"{self.name}-{next(_numbers):06}")
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == "lost":
            raise ExternalOutcomeUnknown("the reply was lost")
        return BookingConfirmation(tracking_no, "571-A")

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        tracking_no = self.bookings.get(booking_id)
        return BookingConfirmation(tracking_no) if tracking_no else None

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        self._raise_next()
        self.cancel_calls += 1
        if booking_id not in self.bookings:
            return "absent"
        if booking_id in self.handed_over:
            return "too_late"
        self.cancelled_bookings.add(booking_id)
        if self.gate is not None:
            await self.gate.wait()
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        self._raise_next()
        self.subscribed.append(tracking_no)

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        self.polls.append(tracking_no)
        self._raise_next()
        return self.tracking.get(tracking_no, [])

    @property
    def current_bookings(self) -> set[UUID]:
        """The bookings that are not cancelled."""
        return self.bookings.keys() - self.cancelled_bookings


def refusal(code: str = "no_service") -> ExternalRefusal:
    return ExternalRefusal(code, "not there")
