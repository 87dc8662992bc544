"""Refund grants: what is asked for, what it comes to, and where the money goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.money import Minor
from commerce.orders.model import Method

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
