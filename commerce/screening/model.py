"""Sightings, signals and scores of the customers of a sale. How signals become a score."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec

from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.types import Reason
from commerce.sales.model import SaleId

MarkKind = Literal["address", "device", "phone", "form", "form_address"]
UserId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._@+-]{1,64}\Z", description="the customer")]
Cursor = Annotated[str, msgspec.Meta(pattern=r"^([1-9][0-9]?|100):[A-Za-z0-9._@+-]{1,64}\Z")]
"""score and user of the last item of a page"""
Signal = Literal["address", "device", "phone", "form", "fast", "rate"]
POINTS: Mapping[Signal, int] = {"address": 25, "form": 20, "device": 40, "phone": 40, "fast": 20, "rate": 30}
"""points of each signal.

Many innocent people share an address (a carrier's network, a company), and with it often a form of requests, that of
its browser or of the shop's app. So address and form together stay below the lowest score that refuses, and an address
alone below every score that does more than log: the bounds are those of `config.screening`.
"""
MAX_SCORE = 100
MARK_BYTES = 16
MAX_MARKS_PER_KIND = 20
"""marks of one kind that a customer may have in a sale, however often he changes his device"""


class SignalLimits(NamedTuple):
    """Numbers that are still ordinary in a sale; more is a signal."""

    accounts_per_address: int
    accounts_per_device: int
    accounts_per_phone: int
    accounts_per_form: int
    form_accounts_per_address: int
    requests_per_s: int

    def is_crowded(self, kind: MarkKind, members: int, addresses: int = 0, was_crowded: bool = False) -> bool:
        """Tell whether a mark has more members than is ordinary.

        A form is that of a program if many accounts use it from few `addresses`: those of browsers and of the shop's
        app come from nearly as many addresses as accounts. Where addresses are not known it tells nothing. A form that
        `was_crowded` stays so until it has twice the addresses, so that its members are not scored again and again.
        """
        match kind:
            case "address":
                return members > self.accounts_per_address
            case "device":
                return members > self.accounts_per_device
            case "phone":
                return members > self.accounts_per_phone
            case "form":
                needed = 2 * members if was_crowded else members
                few = 0 < self.form_accounts_per_address * addresses < needed
                return members > self.accounts_per_form and few
            case "form_address":
                return False


class ScoreReason(msgspec.Struct, frozen=True):
    """A signal of a customer with its points, and what was measured when the score changed.

    `measured` counts the accounts that share the address, device, phone number or form (`fast`: milliseconds after the
    opening; `rate`: requests within a second).
    """

    signal: Signal
    points: int
    measured: int


class Score(NamedTuple):
    """A score from 0 to 100 with its reasons, heaviest first."""

    score: int
    reasons: tuple[ScoreReason, ...]


def score_customer(
    crowds: Mapping[MarkKind, int], peak_per_s: int, fastest_ms: int | None, limits: SignalLimits
) -> Score:
    """Score a customer. `crowds` has the largest number of members of his crowded marks, by kind.

    Each signal counts once, however many addresses or devices a customer has.
    """
    measured: dict[Signal, int] = {kind: members for kind, members in crowds.items() if kind != "form_address"}
    if fastest_ms is not None:
        measured["fast"] = fastest_ms
    if peak_per_s > limits.requests_per_s:
        measured["rate"] = peak_per_s
    reasons = sorted(
        (ScoreReason(signal, POINTS[signal], value) for signal, value in measured.items()),
        key=lambda reason: (-reason.points, reason.signal),
    )
    return Score(min(MAX_SCORE, sum(reason.points for reason in reasons)), tuple(reasons))


class Sighting(NamedTuple):
    """The requests of a customer at a gateway within about a second.

    The marks are hashed, None where there is none.
    """

    sale_id: str
    user_id: str
    address: bytes | None
    device: bytes | None
    form: bytes | None
    joins: int
    orders: int
    peak_per_s: int
    fastest_ms: int | None
    first_request_at: datetime
    last_request_at: datetime


class Mark(NamedTuple):
    """A member of a group: see `screening_marks`."""

    sale_id: str
    kind: MarkKind
    mark: bytes
    member: str


class ScreenedSale(NamedTuple):
    """A running sale whose customers are screened."""

    sale_id: str
    salt: bytes
    version: int
    opens_at: datetime


class Suspect(NamedTuple):
    """A customer with a changed score or clearing, as gateways read it."""

    user_id: str
    version: int
    score: int
    signals: tuple[Signal, ...]
    raised_at: datetime | None
    cleared_until: datetime | None


class ScreenedUser(msgspec.Struct, frozen=True):
    """A customer in a sale: the score with its reasons, and what was seen.

    `fastest_ms` is the shortest time after the opening, if it was shorter than a person can be. Until `cleared_until`
    the score leads to nothing.
    """

    sale_id: SaleId
    user_id: str
    score: int
    reasons: list[ScoreReason]
    raised_at: datetime | None
    cleared_until: datetime | None
    joins: int
    orders: int
    peak_per_s: int
    fastest_ms: int | None
    first_request_at: datetime
    last_request_at: datetime


class ScreeningDecision(msgspec.Struct, frozen=True):
    """A clearing by staff, or its revocation."""

    at: datetime
    actor: str
    action: Literal["cleared", "revoked"]
    reason: str
    until: datetime | None


class ScreenedUserDetails(msgspec.Struct, frozen=True):
    """A customer in a sale with all decisions of staff, latest first."""

    user: ScreenedUser
    decisions: list[ScreeningDecision]


class ClearInput(WithMoments, frozen=True, forbid_unknown_fields=True):
    """The reason of a clearing, and until when it wins over the score."""

    reason: Reason
    until: Moment


class RevokeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason of a revocation."""

    reason: Reason
