"""Judges a request: units that may become a case, until when, on whose account. Without I/O.

A right ends by whole days in the shop's time: days count from the midnight that follows the delivery of the shipment
that brought the units, as the law does, never from a status of the order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.aftersales.model import (
    WHOLE,
    CaseInput,
    CaseKind,
    CaseLineInput,
    CaseStatus,
    ClaimKind,
    Obstacle,
    Payer,
    PolicyTerms,
    ReturnPolicy,
)
from commerce.aftersales.reasons import REASONS

_NEVER_ARRIVED = ClaimKind.LOST


class Refuse(Protocol):
    """Adds an obstacle of a line, at a part of it."""

    def __call__(self, code: str, detail: str, part: str = "") -> None: ...


class DeliveredUnits(NamedTuple):
    """Units of an order line that a shipment has brought."""

    shipment_id: UUID
    line_no: int
    address_no: int
    sku: str
    quantity: int
    delivered_at: datetime


class OrderedUnits(NamedTuple):
    """Units of an order line for one address.

    `cancelled` ones will never arrive, `refunded` ones are paid out without a case, `lost` ones are in shipments that
    are lost or late."""

    line_no: int
    address_no: int
    sku: str
    ordered: int
    delivered: int
    cancelled: int
    refunded: int
    lost: int


class UsedUnits(NamedTuple):
    """Units of a line in a case."""

    line_no: int
    address_no: int
    shipment_id: UUID | None
    quantity: int


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """Facts about an order that a judgement needs. `sold_skus` are those wanted ones that its sale offers."""

    now: datetime
    zone: ZoneInfo
    delivered: Sequence[DeliveredUnits]
    ordered: Sequence[OrderedUnits]
    used: Sequence[UsedUnits]
    policies: Mapping[str, ReturnPolicy]
    cases_of_sku: Mapping[str, int]
    sold_skus: Collection[str]
    free_evidence: Collection[UUID]


class JudgedLine(NamedTuple):
    """A requested line with its place in the order, the deadline and the policy that counts."""

    line_no: int
    address_no: int
    shipment_id: UUID | None
    sku: str
    quantity: int
    wanted_sku: str | None
    policy: ReturnPolicy
    request_by: datetime | None


@dataclass(slots=True)
class Judgement:
    """The judgement of a request; without obstacles it may become a case."""

    items_back: bool
    has_liable_shop: bool
    lines: list[JudgedLine] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)

    @property
    def freight_payer(self) -> Payer:
        """The payer of the way back: the shop if it is liable, or if the policy of every line says so."""
        if self.has_liable_shop or not self.items_back:
            return "shop"
        return "shop" if all(line.policy.terms.freight_payer == "shop" for line in self.lines) else "customer"

    @property
    def request_by(self) -> datetime | None:
        return min((line.request_by for line in self.lines if line.request_by), default=None)


def count_used(status: CaseStatus, items_back: bool, quantity: int, received: int) -> int:
    """Return how many units of a case line no other case may have.

    Units that were to be sent back and never were stay with the customer once the case is resolved."""
    if status in (CaseStatus.DECLINED, CaseStatus.CANCELLED):
        return 0
    return received if status is CaseStatus.RESOLVED and items_back else quantity


def end_of_right(delivered_at: datetime, days: int, zone: ZoneInfo) -> datetime:
    """Return the moment from which a right of so many days is over.

    The day after the delivery is the first one; the right ends with the last one, at midnight in the shop's time."""
    last_day = delivered_at.astimezone(zone).date() + timedelta(days=days)
    return datetime.combine(last_day + timedelta(days=1), time(), zone)


def withheld_fee(amount_minor: int, terms: PolicyTerms, *, is_shop_liable: bool, kind: CaseKind) -> int:
    """Return what a policy withholds from the amount of a returned line, rounded down."""
    if is_shop_liable or kind is not CaseKind.RETURN:
        return 0
    return amount_minor * terms.fee_basis_points // WHOLE


def is_shop_liable(kind: CaseKind, reason_code: str) -> bool:
    """Tell whether the customer is not at fault, by what a case says; the shop answers for carriers."""
    reason = REASONS.get(reason_code)
    return kind is CaseKind.CLAIM or (reason is not None and reason.fault != "customer")


def judge(request: CaseInput, facts: OrderFacts) -> Judgement:
    """Judge a request. Every obstacle is listed, so that a customer need not try again and again."""
    judgement = Judgement(_must_send_back(request), is_shop_liable(request.kind, request.reason))
    _judge_kind(request, judgement)
    _judge_pictures(request, judgement, facts)
    places = set[tuple[int, int, UUID | None]]()
    for number, line in enumerate(request.lines):
        judged = _judge_line(request, judgement, line, f"/lines/{number}", facts)
        if judged is None:
            continue
        place = (judged.line_no, judged.address_no, judged.shipment_id)
        if place in places:
            detail = "name each line of a shipment once"
            judgement.obstacles.append(Obstacle("repeated_line", f"/lines/{number}", detail))
        places.add(place)
        judgement.lines.append(judged)
    _judge_evidence(request, judgement)
    return judgement


def _judge_kind(request: CaseInput, judgement: Judgement) -> None:
    obstacles = judgement.obstacles
    if request.reason not in REASONS:
        obstacles.append(Obstacle("unknown_reason", "/reason", "choose a code of GET /v1/return-reasons"))
    if (request.kind is CaseKind.CLAIM) != (request.claim is not None):
        detail = "say what is claimed: lost, damaged, wrong or missing" if request.claim is None else "only of claims"
        obstacles.append(Obstacle("wrong_kind", "/claim", detail))
    if request.items_back is True and request.claim in (ClaimKind.LOST, ClaimKind.MISSING):
        obstacles.append(Obstacle("wrong_kind", "/items_back", "units that never came cannot be sent back"))
    elif isinstance(request.items_back, bool) and request.kind is not CaseKind.CLAIM:
        obstacles.append(Obstacle("wrong_kind", "/items_back", f"leave it out: the kind {request.kind} decides it"))


def _judge_pictures(request: CaseInput, judgement: Judgement, facts: OrderFacts) -> None:
    for number, picture in enumerate(request.evidence):
        if picture not in facts.free_evidence or picture in request.evidence[:number]:
            detail = "no picture of this order that is free: upload it to the order first, and name it once"
            judgement.obstacles.append(Obstacle("no_such_picture", f"/evidence/{number}", detail))


def _must_send_back(request: CaseInput) -> bool:
    if request.kind is CaseKind.CLAIM:
        return request.items_back if isinstance(request.items_back, bool) else request.claim is ClaimKind.WRONG
    return request.kind is not CaseKind.REFUND_ONLY


def _judge_evidence(request: CaseInput, judgement: Judgement) -> None:
    needs_it = request.kind is CaseKind.CLAIM and request.claim is not _NEVER_ARRIVED
    if needs_it and not request.evidence and any(line.policy.terms.needs_evidence for line in judgement.lines):
        judgement.obstacles.append(Obstacle("evidence_needed", "/evidence", "add a picture of what is wrong"))


def _judge_line(
    request: CaseInput, judgement: Judgement, line: CaseLineInput, pointer: str, facts: OrderFacts
) -> JudgedLine | None:
    """Judge a line; None if the order has no such units."""

    def refuse(code: str, detail: str, part: str = "") -> None:
        judgement.obstacles.append(Obstacle(code, pointer + part, detail))

    never_arrived = request.claim is _NEVER_ARRIVED
    if never_arrived != (line.shipment_id is None):
        refuse(
            "wrong_shipment",
            "leave the shipment out: it is claimed that nothing arrived"
            if never_arrived
            else "name the delivered shipment that brought the units; what never arrived is a claim of the kind lost",
            "/shipment_id",
        )
        return None
    placed = _find_lost(line, facts) if never_arrived else _find_delivered(line, facts)
    if placed is None:
        refuse("not_delivered", "the shipment has not brought this line: only delivered units can be returned")
        return None
    sku, address_no, left, delivered_at = placed
    if line.quantity > left:
        text = f"{left} units are left of this line" if left else "no unit is left of this line"
        refuse("too_many_units", f"{text}, over all cases, cancellations and refunds: ask for no more", "/quantity")
    policy = facts.policies[sku]
    if facts.cases_of_sku.get(sku, 0) >= policy.terms.max_cases_per_sku:
        refuse("too_many_cases", f"{sku} had as many requests in this order as it can: contact the shop")
    request_by = _judge_time(request, judgement, policy, delivered_at, refuse, facts)
    if request.kind is CaseKind.EXCHANGE and line.wanted_sku is None:
        refuse("wanted_sku_missing", "name the SKU that you want instead", "/wanted_sku")
    elif request.kind is not CaseKind.EXCHANGE and line.wanted_sku is not None:
        refuse("wrong_kind", "leave it out: only an exchange wants another SKU", "/wanted_sku")
    elif line.wanted_sku is not None and line.wanted_sku not in facts.sold_skus:
        refuse("not_sold", f"the sale of the order does not offer {line.wanted_sku}: choose another", "/wanted_sku")
    return JudgedLine(
        line.line_no, address_no, line.shipment_id, sku, line.quantity, line.wanted_sku, policy, request_by
    )


class _Place(NamedTuple):
    sku: str
    address_no: int
    left: int
    delivered_at: datetime | None


def _find_delivered(line: CaseLineInput, facts: OrderFacts) -> _Place | None:
    """Find the units of a delivered shipment, with how many no case has yet."""
    for units in facts.delivered:
        if (units.shipment_id, units.line_no) == (line.shipment_id, line.line_no):
            used = sum(
                case.quantity
                for case in facts.used
                if (case.shipment_id, case.line_no) == (units.shipment_id, units.line_no)
            )
            left = min(units.quantity - used, _count_left(units.line_no, units.address_no, facts))
            return _Place(units.sku, units.address_no, max(0, left), units.delivered_at)
    return None


def _find_lost(line: CaseLineInput, facts: OrderFacts) -> _Place | None:
    """Find the units of a line that are lost or late, with how many no case has yet."""
    for units in facts.ordered:
        if (units.line_no, units.address_no) == (line.line_no, line.ship_to):
            used = sum(
                case.quantity
                for case in facts.used
                if case.shipment_id is None and (case.line_no, case.address_no) == (line.line_no, line.ship_to)
            )
            expected = units.ordered - units.cancelled - units.delivered
            left = min(min(expected, units.lost) - used, _count_left(units.line_no, units.address_no, facts))
            return _Place(units.sku, units.address_no, max(0, left), None) if units.lost and expected > 0 else None
    return None


def _count_left(line_no: int, address_no: int, facts: OrderFacts) -> int:
    """Return how many units of an order line no case, cancellation or refund has."""
    [units] = [units for units in facts.ordered if (units.line_no, units.address_no) == (line_no, address_no)]
    used = sum(case.quantity for case in facts.used if (case.line_no, case.address_no) == (line_no, address_no))
    return units.ordered - max(units.cancelled, units.refunded) - used


def _judge_time(
    request: CaseInput,
    judgement: Judgement,
    policy: ReturnPolicy,
    delivered_at: datetime | None,
    refuse: Refuse,
    facts: OrderFacts,
) -> datetime | None:
    """Judge deadline and exclusions. Returns when the right ends; None for units that never arrived."""
    terms = policy.terms
    has_cause = judgement.has_liable_shop or request.kind is CaseKind.REFUND_ONLY
    days = terms.claim_days if has_cause else terms.return_days
    if not has_cause and (terms.excluded_because or days is None):
        detail = terms.excluded_because or "the shop takes it back only with a cause"
        refuse("excluded", f"it cannot be returned without a cause: {detail}")
        return None
    if not has_cause and request.is_opened and not terms.accepts_opened:
        refuse("opened", "it is taken back unopened only; claim it if something is wrong with it")
    if delivered_at is None or days is None:
        return None
    request_by = end_of_right(delivered_at, days, facts.zone)
    if facts.now >= request_by:
        refuse("deadline_passed", f"the {days} days ended at {request_by.isoformat()}: contact the shop")
    return request_by
