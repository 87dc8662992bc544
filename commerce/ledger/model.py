"""Accounts, postings and cash, as staff see and enter them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.moments import WithMoments
from commerce.kernel.money import Currency, Minor, minor_digits
from commerce.kernel.types import Reason, filled_line

AccountKind = Literal["asset", "liability", "income", "expense", "clearing"]
PostingKind = Literal[
    "capture",
    "refund",
    "gift",
    "cash_collected",
    "cash_deposit",
    "fee",
    "payout",
    "exchange",
    "transfer",
    "adjustment",
]
CashHolder = Annotated[
    str,
    msgspec.Meta(
        max_length=80,
        pattern=r"^(shop|(carrier|driver):[A-Za-z0-9_-]{1,64})\Z",
        description="who has the cash: `shop`, `carrier:NAME` or `driver:VEHICLE`",
        examples=["carrier:sf_express", "driver:V1", "shop"],
    ),
]
Reference = Annotated[str, filled_line(200)]


class NewPosting(NamedTuple):
    """A movement of money to post: its entries (account: minor units) add up to zero.

    The kind follows from the first word of its name. `actor` is a member of staff, `booked_on` the day of the provider,
    carrier or bank, `reference` their number of it."""

    posting: str
    order_id: UUID | None
    currency: str
    entries: Mapping[str, int]
    actor: str | None = None
    reference: str | None = None
    reason: str | None = None
    booked_on: date | None = None


class CashDeposit(WithMoments, frozen=True, forbid_unknown_fields=True):
    """Cash that a carrier or a driver hands over, or that the shop takes to the bank, once per key.

    `amount` is what arrives. `fee` is what the carrier keeps for its service. `missing` is what should have come and
    did not (less than 0: there is more), with a `reason`. All three leave the holder's account."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=r"^[!-~]+\Z")]
    holder: CashHolder
    to: Literal["shop", "bank"]
    amount: Annotated[int, msgspec.Meta(ge=0, le=10**15, description="minor units that arrive")]
    currency: Currency
    fee: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0
    missing: Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)] = 0
    reference: Reference | None = None
    reason: Reason | None = None
    booked_on: date | None = None

    def __post_init__(self) -> None:
        minor_digits(self.currency)
        if self.amount + self.fee + self.missing <= 0:
            raise ValueError("`amount`, `fee` and `missing` must add up to more than 0")
        if self.missing and self.reason is None:
            raise ValueError("say in `reason` why cash is missing, or why there is more")
        if self.holder == "shop" and self.to == "shop":
            raise ValueError("the shop has it already: deposit it in the bank")
        if self.fee and not self.holder.startswith("carrier:"):
            raise ValueError("only a carrier keeps a `fee`")


class HeldCash(msgspec.Struct, frozen=True):
    """Cash that somebody holds for the shop. `oldest_at` is when the oldest part of it was collected."""

    holder: str
    balance: int
    currency: str
    oldest_at: datetime | None


class HeldCashList(msgspec.Struct, frozen=True):
    """All cash that is not in the bank, the oldest first."""

    items: list[HeldCash]


class AccountBalance(msgspec.Struct, frozen=True):
    """The balance of an account in one currency: more than 0 for what the shop has or has spent.

    All store credit is one line, `credit`."""

    account: str
    kind: AccountKind
    currency: str
    balance: int


class TrialBalance(msgspec.Struct, frozen=True):
    """The balances of all accounts, at the end of a day or now. `difference` is their sum: it must be 0."""

    items: list[AccountBalance]
    difference: dict[str, int]


class Deposited(msgspec.Struct, frozen=True):
    """A deposit that is posted, and what its holder still has."""

    posting: str
    deposited: Minor
    left: HeldCash
