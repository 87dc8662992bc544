"""Cases as customers and staff see them, what they send, and the policies that count.

Amounts are integers of minor units of the order's currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.model import Sku
from commerce.kernel.money import MAX_MINOR, Minor
from commerce.kernel.types import Reason, filled_line, filled_or_empty_line
from commerce.sales.model import SaleId

MAX_CASE_LINES = 100
MAX_EVIDENCE = 9
MAX_POLICY_SKUS = 5_000
WHOLE = 10_000
"""basis points of the whole"""


class CaseKind(StrEnum):
    """The kinds of cases. A refund without a return is `refund_only`."""

    RETURN = "return"
    EXCHANGE = "exchange"
    CLAIM = "claim"
    REFUND_ONLY = "refund_only"


class ClaimKind(StrEnum):
    """The kinds of a claim.

    Units that are `lost` never arrived; those that are `missing` were not in the shipment."""

    LOST = "lost"
    DAMAGED = "damaged"
    WRONG = "wrong"
    MISSING = "missing"


class CaseStatus(StrEnum):
    """The status of a case.

    Staff decide on `requested` and `inspected` ones; the money of `resolved` ones moves."""

    REQUESTED = "requested"
    APPROVED = "approved"
    IN_TRANSIT = "in_transit"
    RECEIVED = "received"
    INSPECTED = "inspected"
    RESOLVED = "resolved"
    DECLINED = "declined"
    CANCELLED = "cancelled"


FINAL_STATUSES = frozenset({CaseStatus.RESOLVED, CaseStatus.DECLINED, CaseStatus.CANCELLED})
TRANSITIONS: Mapping[CaseStatus, frozenset[CaseStatus]] = {
    CaseStatus.REQUESTED: frozenset({CaseStatus.APPROVED, CaseStatus.DECLINED, CaseStatus.CANCELLED}),
    CaseStatus.APPROVED: frozenset(
        {CaseStatus.IN_TRANSIT, CaseStatus.RECEIVED, CaseStatus.RESOLVED, CaseStatus.CANCELLED}
    ),
    CaseStatus.IN_TRANSIT: frozenset(
        {CaseStatus.APPROVED, CaseStatus.RECEIVED, CaseStatus.RESOLVED, CaseStatus.CANCELLED}
    ),
    CaseStatus.RECEIVED: frozenset({CaseStatus.INSPECTED}),
    CaseStatus.INSPECTED: frozenset({CaseStatus.RECEIVED, CaseStatus.RESOLVED}),
    CaseStatus.RESOLVED: frozenset({CaseStatus.APPROVED}),
    CaseStatus.DECLINED: frozenset({CaseStatus.REQUESTED}),
    CaseStatus.CANCELLED: frozenset({CaseStatus.REQUESTED}),
}
"""allowed changes of a status; the table `case_transitions` enforces the same ones"""

ItemsState = Literal["not_expected", "expected", "in_transit", "partly_received", "received", "inspected"]
"""progress of the products on their way back"""
MoneyState = Literal["undecided", "fixed", "nothing_due", "granted", "needs_other_way", "done"]
"""`fixed` by the approval, `granted` by the resolution, `done` when all refunds are"""
WaitsFor = Literal["customer", "staff", "carrier", "warehouse", "provider", "nobody"]
Payer = Literal["shop", "customer"]

UnitCount = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
LineNo = Annotated[int, msgspec.Meta(ge=0, le=32_767)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_MINOR, description="minor units of the currency")]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1, description="the case's `version` as you last read it")]
ReasonCode = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,64}\Z", description="a code of `GET /v1/return-reasons`")
]
CaseText = Annotated[str, filled_or_empty_line(1000)]
PolicyId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["festival-2026"])]
Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]


class PolicyTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Terms of returns and claims for a sale, for products, or for all.

    `return_days` and `claim_days` are whole days after the day of delivery, in the shop's time. Without `return_days`,
    or with `excluded_because`, nothing can be returned without a claim. `fee_basis_points` are withheld from a return,
    and `freight_payer` pays for the way back, unless the shop is at fault. Units that are inspected as good are sold
    again if `is_resold`, else written off."""

    sale_id: SaleId | None = None
    skus: Annotated[list[Sku], msgspec.Meta(max_length=MAX_POLICY_SKUS)] = msgspec.field(default_factory=list)
    return_days: Days | None = 7
    claim_days: Days = 15
    excluded_because: Reason | None = None
    accepts_opened: bool = True
    freight_payer: Payer = "customer"
    fee_basis_points: Annotated[int, msgspec.Meta(ge=0, le=WHOLE)] = 0
    needs_evidence: bool = False
    is_resold: bool = True
    max_cases_per_sku: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5


class ReturnPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A stored policy. The most specific one counts.

    That is one for the sale and the product, else one for the sale, for the product, or for all."""

    policy_id: str
    version: int
    terms: PolicyTerms
    changed_at: datetime
    actor: str


class ReturnReason(msgspec.Struct, frozen=True):
    """A reason of cases with its labels.

    If `fault` is not the customer's, the shop pays for the way back."""

    code: str
    fault: Literal["customer", "shop", "carrier"]
    en: str
    zh: str


class ReturnReasons(msgspec.Struct, frozen=True):
    """All reasons of cases."""

    items: list[ReturnReason]


class CaseLineInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Units of an order line: of the shipment that brought them, or without one if they never arrived.

    `ship_to` is needed only without a shipment. An exchange names the SKU that is wanted instead."""

    line_no: LineNo
    quantity: UnitCount
    shipment_id: UUID | None = None
    ship_to: LineNo = 0
    wanted_sku: Sku | None = None


class CaseInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A customer's request. `items_back` is of claims only: whether the products are to be sent back."""

    kind: CaseKind
    lines: Annotated[list[CaseLineInput], msgspec.Meta(min_length=1, max_length=MAX_CASE_LINES)]
    reason: ReasonCode
    claim: ClaimKind | None = None
    items_back: bool | UnsetType = UNSET
    is_opened: bool = False
    text: CaseText = ""
    evidence: Annotated[list[UUID], msgspec.Meta(max_length=MAX_EVIDENCE)] = msgspec.field(default_factory=list)


class Obstacle(msgspec.Struct, frozen=True):
    """The reason why a request would be refused: a problem's code, a JSON pointer, and what to do."""

    code: str
    pointer: str
    detail: str


class ExchangePreview(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a replacement now in minor units, and what was paid for the returned units: the credit.

    The difference is to be paid, or goes back. Nothing is reserved before the units are back."""

    price: Minor
    credit: Minor
    to_pay: Minor
    to_refund: Minor


class CasePreview(msgspec.Struct, frozen=True, kw_only=True):
    """Shows how a request would be judged now. Nothing is stored.

    total = amount + freight - fee; of an exchange it is the credit for `exchange`. `request_by` is when the right to
    this request ends, at the earliest of its lines."""

    is_eligible: bool
    obstacles: list[Obstacle]
    items_back: bool
    freight_payer: Payer
    amount: Minor
    freight: Minor
    fee: Minor
    total: Minor
    currency: str
    request_by: datetime | None
    policies: list[str]
    exchange: ExchangePreview | None = None


class CaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a case.

    `amount` is fixed by the approval; received units are `resellable`, `damaged` or `rejected`."""

    case_line_no: int
    line_no: int
    ship_to: int
    shipment_id: UUID | None
    sku: str
    quantity: int
    received: int
    resellable: int
    damaged: int
    rejected: int
    amount: Minor | None
    wanted_sku: str | None


class CaseOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer in place of the request. If the customer accepts, the case is approved with these terms."""

    kind: CaseKind
    items_back: bool
    amount: Amount
    freight: Amount
    fee: Amount
    freight_payer: Payer
    reason: str


class CaseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a case; without statuses one that left the status as it was."""

    version: int
    at: datetime
    from_status: CaseStatus | None
    to_status: CaseStatus | None
    actor: str
    reason: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of a customer."""

    evidence_id: UUID
    order_id: UUID
    case_id: UUID | None
    media_type: str
    size_bytes: int
    width_px: int
    height_px: int
    created_at: datetime


class CaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A case in a list. `version` counts its changes; `waits_for` names who must act next, until `due_at`."""

    case_id: UUID
    order_id: UUID
    user_id: str
    kind: CaseKind
    claim: ClaimKind | None
    status: CaseStatus
    items_state: ItemsState
    money_state: MoneyState
    version: int
    is_escalated: bool
    items_back: bool
    is_opened: bool
    reason: str
    text: str
    freight_payer: Payer
    currency: str
    amount: Minor | None
    freight: Minor | None
    fee: Minor | None
    offer: CaseOffer | None
    grant_id: UUID | None
    exchange_order_id: UUID | None
    waits_for: WaitsFor
    due_at: datetime | None
    created_by: str
    created_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its lines, events and pictures."""

    case: CaseSummary
    lines: list[CaseLine]
    events: list[CaseEvent]
    evidence: list[Evidence]


# What staff and customers send to change a case.


class CaseStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change of a case that was read with `version`."""

    version: Version
    reason: Reason


class CaseAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A customer's change of a case that was read with `version`."""

    version: Version
    reason: Annotated[str, filled_line(200)] = "by the customer"


class EvidenceToAdd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Uploaded pictures to add to a case."""

    version: Version
    evidence: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=MAX_EVIDENCE)]


class ApprovalInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An approval. Amounts that are left out follow from what was paid and the policy.

    `amount` is for all lines together and can only be lower than what was paid for them. `lines` has amounts by
    `case_line_no` instead. With `items_back` staff deviate from the request."""

    version: Version
    reason: Reason
    amount: Amount | None = None
    lines: dict[LineNo, Amount] | None = None
    freight: Amount | None = None
    fee: Amount | None = None
    freight_payer: Payer | None = None
    items_back: bool | None = None


class StaffCaseInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A case that staff open for a customer, past deadlines and exclusions of the policy."""

    request: CaseInput
    reason: Reason


class OfferInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An offer in place of what was requested, such as a part of the money without sending anything back."""

    version: Version
    reason: Reason
    amount: Amount
    kind: CaseKind = CaseKind.REFUND_ONLY
    items_back: bool = False
    freight: Amount = 0
    fee: Amount = 0
    freight_payer: Payer = "shop"


View = Literal["all", "staff", "customer", "carrier", "warehouse", "provider", "overdue", "escalated"]
"""open cases by who must act, those past `due_at`, or those that customers have escalated"""
