"""What a customer asks for and sees of payments, and how the rows look from inside."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.kernel.money import Currency, Minor, Money
from commerce.kernel.types import Reason
from commerce.orders.model import Method
from commerce.payments.provider_port import PaymentAction, PaymentFlow

Status = Literal["pending", "authorised", "captured", "failed", "closed"]
Task = Literal["create", "query", "close", "recover_order", "update_order"]
RefundStatus = Literal["pending", "done", "failed"]
INTERNAL_METHODS: tuple[Method, ...] = ("balance", "cod")
"""ways to pay that need nobody outside"""


class TenderInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the total and how it is to be paid; `payer` is the provider's own id of the customer (for jsapi)."""

    method: Method
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)]
    flow: PaymentFlow | None = None
    payer: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")] | None = None


class StartPayments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an order is to be paid. Without `payments`, as was said when it was placed."""

    payments: Annotated[list[TenderInput], msgspec.Meta(max_length=8)] = []


class RefundView(msgspec.Struct, frozen=True):
    """Money on its way back, and why."""

    refund_id: UUID
    amount: Minor
    status: RefundStatus
    reason: str
    created_at: datetime


class PaymentView(msgspec.Struct, frozen=True):
    """One payment of an order. `action` says what the customer has to do; one that was replaced is not `current`."""

    payment_id: UUID
    method: Method
    amount: Money
    status: Status
    current: bool
    expires_at: datetime
    action: PaymentAction | None = None
    reason: str | None = None
    refunded: Minor = 0
    refunds: list[RefundView] = []


class OrderPayments(msgspec.Struct, frozen=True):
    """An order's payments: what is to be paid, what was captured and not given back."""

    order_id: UUID
    total: Money
    net_captured: Minor
    payments: list[PaymentView]


class RefundInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give back a part of what was captured, or all that is left. A repeat under the same key is the same refund."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]+\Z")]
    reason: Reason
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)] | None = None


class StoreCreditGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Store credit that staff give. A repeat under the same key is the same gift."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=r"^[!-~]+\Z")]
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**12)]
    currency: Currency


class StoreCredit(msgspec.Struct, frozen=True):
    """A user's store credit."""

    user_id: str
    balances: list[Money]


class Payment(msgspec.Struct, frozen=True):
    """A row of `payments`."""

    payment_id: UUID
    order_id: UUID
    user_id: str
    plan_revision: int
    tender_no: int
    method: Method
    flow: str
    payer: str | None
    amount_minor: int
    currency: str
    status: Status
    reason: str | None
    action: PaymentAction | None
    transaction_id: str | None
    created_at: datetime
    expires_at: datetime
    refunded_minor: int
    task: Task | None
    attempts: int
    parked: bool

    @property
    def amount(self) -> Money:
        return Money(self.amount_minor, self.currency)


class Refund(msgspec.Struct, frozen=True):
    """A row of `refunds`."""

    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    refund_key: str
    amount_minor: int
    currency: str
    reason: str
    status: RefundStatus
    created_at: datetime
    requested: bool
    attempts: int


class ClaimedRefund(msgspec.Struct, frozen=True):
    """A claimed refund with what is needed of its payment."""

    refund: Refund
    method: Method
    user_id: str
    captured_minor: int


class ParkedJob(msgspec.Struct, frozen=True):
    """A job that was given up, for a person to look at."""

    kind: Literal["payment", "refund"]
    id: UUID
    order_id: UUID
    method: Method
    amount: Money
    task: str
    attempts: int
    reason: str
