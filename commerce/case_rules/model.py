"""Rules that decide cases, what they are given, what they have decided, and what they may spend.

Amounts are integers of minor units.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from commerce.aftersales.model import MAX_POLICY_SKUS, WHOLE, CaseKind, ClaimKind, ReasonCode
from commerce.catalog.model import Sku
from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.money import Minor
from commerce.kernel.types import Reason
from commerce.sales.model import SaleId

MAX_RULES = 200
HISTORY_DAYS = 90
"""days before a request whose cases and orders are the customer's history"""


class RuleOutcome(StrEnum):
    """The outcome of a rule. `by_hand` leaves a case to a person."""

    APPROVE = "approve"
    REFUND_WITHOUT_RETURN = "refund_without_return"
    ASK_FOR_EVIDENCE = "ask_for_evidence"
    BY_HAND = "by_hand"
    DECLINE = "decline"


class DeliveryReport(StrEnum):
    """The state of a shipment that has units of a case."""

    DELIVERED = "delivered"
    LOST = "lost"
    RETURNED = "returned"
    UNDER_WAY = "under_way"
    NOT_SENT = "not_sent"


_CurrencyCode = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217 code")]
_Amounts = Annotated[
    dict[_CurrencyCode, Minor], msgspec.Meta(min_length=1, max_length=20, description="minor units by currency")
]
_Days = Annotated[int, msgspec.Meta(ge=0, le=3_650)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
_Share = Annotated[int, msgspec.Meta(ge=0, le=WHOLE, description="basis points")]
_Skus = Annotated[list[Sku], msgspec.Meta(min_length=1, max_length=MAX_POLICY_SKUS)]


class RuleConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Conditions of a rule, all of which must hold. What is left out is not looked at.

    `skus` must have every product of the case, `excluded_skus` none. An amount is what the case would come to; a
    currency that is not named does not match. Days are whole days of the shop since the first delivery of a unit of
    the case. `min_cases` to `is_first_order` are of the customer's last 90 days before the request: other cases, what
    they have refunded, and the share of ordered units that are in cases. `carrier` must have the report on every
    shipment; a delivery is proven if the carrier or its driver has reported it, not staff."""

    kinds: Annotated[list[CaseKind], msgspec.Meta(min_length=1, max_length=10)] | None = None
    claims: Annotated[list[ClaimKind], msgspec.Meta(min_length=1, max_length=10)] | None = None
    reasons: Annotated[list[ReasonCode], msgspec.Meta(min_length=1, max_length=100)] | None = None
    min_amount: _Amounts | None = None
    max_amount: _Amounts | None = None
    min_days: _Days | None = None
    max_days: _Days | None = None
    skus: _Skus | None = None
    excluded_skus: _Skus | None = None
    sales: Annotated[list[SaleId], msgspec.Meta(min_length=1, max_length=100)] | None = None
    min_cases: _Count | None = None
    max_cases: _Count | None = None
    min_refunded: _Amounts | None = None
    max_refunded: _Amounts | None = None
    min_returned_share: _Share | None = None
    max_returned_share: _Share | None = None
    is_first_order: bool | None = None
    carrier: Annotated[list[DeliveryReport], msgspec.Meta(min_length=1, max_length=10)] | None = None
    is_delivery_proven: bool | None = None
    has_evidence: bool | None = None


class CaseRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of a rule set. The customer reads its reason."""

    outcome: RuleOutcome
    reason: Reason
    conditions: RuleConditions = RuleConditions()


_Rules = Annotated[list[CaseRule], msgspec.Meta(min_length=1, max_length=MAX_RULES)]


class RuleSetInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules in their sequence: the first one that matches counts. `reason` says why they are new."""

    rules: _Rules
    reason: Reason


class RuleSetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the rules in a list."""

    version: int
    created_at: datetime
    actor: str
    reason: str
    rule_count: int


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the rules, which never changes."""

    version: int
    created_at: datetime
    actor: str
    reason: str
    rules: list[CaseRule]


class RuleActivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The version that decides from now on; null: none does."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None
    reason: Reason


class RuleSwitch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The switch: rules decide while it is on."""

    is_on: bool
    reason: Reason


class RuleBudgetInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of approvals by rules in one day of the shop. 0 stops them for the currency."""

    max_amount: Minor
    max_cases: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    reason: Reason


class RuleBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of a day with what was used today. `refused_cases` were left to a person because of it."""

    currency: str
    max_amount: Minor
    max_cases: int
    day: date
    amount: int
    cases: int
    refused_cases: int


class RuleState(msgspec.Struct, frozen=True, kw_only=True):
    """The switch, the version that decides, and the budgets with what was used today."""

    is_on: bool
    active_version: int | None
    budgets: list[RuleBudget]


class RuleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the rules, the switch or a budget."""

    event_no: int
    at: datetime
    kind: Literal["set_added", "activated", "deactivated", "switched_on", "switched_off", "budget_set"]
    details: dict[str, Any]
    actor: str
    reason: str


class CaseInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a rule looks at, as the case was requested.

    `amount` is null if nothing can be refunded now. `days` are since the first delivery, null without one."""

    at: datetime
    kind: CaseKind
    claim: ClaimKind | None
    items_back: bool
    reason: str
    currency: str
    amount: int | None
    days: int | None
    skus: list[str]
    sale_id: str
    cases: int
    refunded: dict[str, int]
    returned_share: int
    is_first_order: bool
    carrier: list[DeliveryReport]
    is_delivery_proven: bool
    has_evidence: bool


class RuleDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision by rules.

    `rule_no` is null if they were switched off. `case_version` is that of the case afterwards. `overturned_at` and
    `overturned_by` are set once a person has changed it."""

    case_id: UUID
    decision_no: int
    at: datetime
    rule_set_version: int
    rule_no: int | None
    outcome: RuleOutcome
    inputs: CaseInputs
    reasons: list[str]
    case_version: int
    amount: int | None
    overturned_at: datetime | None = None
    overturned_by: str | None = None


class RuleDecisions(msgspec.Struct, frozen=True):
    """All decisions of rules on a case, oldest first."""

    items: list[RuleDecision]


class DryRunInput(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules to try on the cases that were requested from `from` until before `to`.

    Left out, `to` is now, and `from` is 30 days before it."""

    rules: _Rules
    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None


PastOutcome = Literal["approve", "refund_without_return", "decline", "cancelled", "undecided"]
"""the end or present state of a past case"""


class DryRunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Cases for which rules have an outcome, and what these come to, by currency."""

    outcome: RuleOutcome
    cases: int
    amounts: dict[str, int]


class DryRunDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Cases that rules would decide otherwise, with the first of their ids.

    An approval of a case without anything to send back is a `refund_without_return` here."""

    was: PastOutcome
    was_by_rule: bool
    would_be: RuleOutcome
    cases: int
    amounts: dict[str, int]
    sample: list[UUID]


class DryRunRow(msgspec.Struct, frozen=True, kw_only=True):
    """The number of cases that a row of the rules decides."""

    rule_no: int
    outcome: RuleOutcome
    cases: int


class BusiestDay(msgspec.Struct, frozen=True, kw_only=True):
    """The day of the shop on which rules would have paid out most of a currency, without a budget."""

    currency: str
    day: date
    amount: int
    cases: int


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions that rules would have taken on past requests, without budgets.

    `without_inputs` are cases that are left out: requested before inputs were stored, opened by staff, or decided by a
    person before any rule could."""

    cases: int
    without_inputs: int
    outcomes: list[DryRunOutcome]
    rows: list[DryRunRow]
    differences: list[DryRunDifference]
    busiest_days: list[BusiestDay]
