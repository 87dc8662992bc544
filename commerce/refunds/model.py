"""Refund grants: what is asked for, what it comes to, and where the money goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.money import MAX_MINOR, Minor, Money
from commerce.kernel.types import Reason
from commerce.orders.model import AddressNo, Method, Quantity
from commerce.payments.model import Proof

GrantKind = Literal["cancellation", "case", "staff"]
Strategy = Literal["ratio", "first", "last"]
"""division over payments: by what is left of each, or from the first or the last tender on"""
FreightRule = Literal["none", "rest", "unshipped"]
"""`rest`: freight not refunded yet; `unshipped`: the same, once no unit is left and none was shipped"""
Destination = Literal["provider", "store_credit", "not_collected"]
"""target of money: the provider, store credit, or cash on delivery that need not be paid"""


class GrantLine(NamedTuple):
    """Units of an order line for one address that are to be refunded."""

    line_no: int
    address_no: int
    quantity: int


class GrantRequest(NamedTuple):
    """A request for a refund of an order, once per `kind` and `source_id`.

    Units are worth their share of what was paid for them; `rest` stands for all that are left, and all money with them.
    `amount_override` replaces the value of all lines together by less, down to 0; without lines it is an amount that
    refunds no units. `freight` is a rule or minor units; the fee for cash on delivery counts as freight. `fee_minor` is
    withheld. `reason` is for the customer to read, at most 500 characters.
    """

    kind: GrantKind
    source_id: UUID | None
    reason: str
    actor: str
    lines: Sequence[GrantLine] | Literal["rest"] = ()
    freight: FreightRule | int = "none"
    fee_minor: int = 0
    amount_override: int | None = None
    strategy: Strategy = "ratio"
    request_digest: bytes | None = None
    """another request under the same source is refused, if both have one"""


class GrantedLine(msgspec.Struct, frozen=True):
    """Refunded units of a line for one address: `quantity` of them from `first_unit`."""

    line_no: int
    ship_to: int
    first_unit: int
    quantity: int
    amount: Minor


class Allocation(msgspec.Struct, frozen=True):
    """The part of a grant that goes back over one payment, in minor units, and where it goes."""

    payment_id: UUID
    method: Method
    amount: Minor
    goes_to: Destination


class Grant(msgspec.Struct, frozen=True):
    """A refund that was decided, in minor units: lines + freight - fee = amount.

    An amount that refunds no units comes on top. `fee` is all that is withheld: the fee, the difference to an agreed
    amount, and what came back before without units. A preview has no `grant_id`.
    """

    grant_id: UUID | None
    order_id: UUID
    amount: Minor
    currency: str
    freight: Minor
    fee: Minor
    strategy: Strategy
    lines: list[GrantedLine]
    allocations: list[Allocation]


# Requests of staff.


class RefundLineInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of an order line for one address."""

    line_no: Annotated[int, msgspec.Meta(ge=0, le=32_767)]
    quantity: Quantity
    ship_to: AddressNo = 0


class RefundTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Extent of a refund: units of lines with freight, or an amount that refunds no units.

    Without `amount`, `lines` and `freight` it is all that is left. With `lines`, `amount` is an agreed amount below
    their value. `fee` is withheld. Amounts are in minor units.
    """

    amount: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)] | None = None
    lines: Annotated[list[RefundLineInput], msgspec.Meta(max_length=1_000)] = []
    freight: FreightRule | Minor = "none"
    fee: Minor = 0
    strategy: Strategy = "ratio"


class RefundInput(RefundTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A refund of an order. A repeat under the same key changes nothing."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]+\Z")]
    reason: Reason


class UnitAmount(msgspec.Struct, frozen=True):
    """Units that are worth the same each, in minor units."""

    units: int
    amount: Minor


class PreviewLine(msgspec.Struct, frozen=True):
    """Units of a line with their amount, and the value of each.

    Values of units of a line differ by one minor unit at most.
    """

    line_no: int
    ship_to: int
    quantity: int
    amount: Minor
    unit_amounts: list[UnitAmount]


class RefundPreview(msgspec.Struct, frozen=True):
    """A refund as it would be made now, in minor units: lines + freight - fee = amount.

    `allocations` are the parts of payments, and their targets: the provider, or store credit.
    """

    order_id: UUID
    amount: Minor
    currency: str
    freight: Minor
    fee: Minor
    strategy: Strategy
    lines: list[PreviewLine]
    allocations: list[Allocation]


# Refunds that were made at a provider by hand.


class HandRefund(msgspec.Struct, frozen=True):
    """A refund on a provider's statement that the shop has not requested, for staff.

    `number` is the provider's own. `proof` is what one person has found out about it; another person confirms that."""

    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    method: Method
    amount: Money
    number: str
    booked_on: date
    found_at: datetime
    proof: str | None
    recorded_by: str | None


class HandRefundInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Knowledge of a refund that somebody made at a provider: who did it, and why."""

    proof: Proof


HandRefundOutcome = Literal["refund", "loss"]
"""`refund`: it counts as a refund of its order; `loss`: the customer has that money twice"""


class HandRefundResult(msgspec.Struct, frozen=True):
    """The outcome of a refund by hand that is posted."""

    outcome: HandRefundOutcome


# Lists.

ListName = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", examples=["recall-2026-11"]),
]
MAX_REQUEST_ROWS = 500


class RefundRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of a list: units of a line, or an amount that refunds no units, in minor units.

    `row` is its key within the list: a repeat refunds nothing more.
    """

    row: ListName
    order_id: UUID
    reason: Reason
    line: RefundLineInput | None = None
    amount: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)] | None = None


class RefundListInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Refunds of many orders under the name of their list. With `dry_run` nothing is stored."""

    name: ListName
    rows: Annotated[list[RefundRow], msgspec.Meta(min_length=1, max_length=MAX_REQUEST_ROWS)]
    dry_run: bool = False


class RefundRowResult(msgspec.Struct, frozen=True):
    """The outcome of a row. `unchanged`: it was refunded before; `not_done`: repeat the list.

    `amount` is in minor units, `code` and `reason` say why nothing was refunded.
    """

    row: str
    order_id: UUID | None
    outcome: Literal["refunded", "unchanged", "refused", "not_done"]
    amount: Minor = 0
    currency: str | None = None
    code: str | None = None
    reason: str | None = None


class RefundListTotal(msgspec.Struct, frozen=True):
    """The sum of a list by method, destination and currency, in minor units."""

    method: Method
    goes_to: Destination
    currency: str
    refunds: int
    amount: int


class RefundListReport(msgspec.Struct, frozen=True):
    """Outcomes of rows in the sequence of the list, and sums of their new refunds."""

    name: str
    dry_run: bool
    rows: list[RefundRowResult]
    totals: list[RefundListTotal]
