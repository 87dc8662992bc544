"""Input and output of payments over HTTP, and their rows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple, get_args
from uuid import UUID

import msgspec

from commerce.jobs.model import Job
from commerce.kernel.money import Currency, Minor, Money, minor_digits
from commerce.kernel.types import Reason, filled_line
from commerce.orders.model import Method, OrderStatus, RefundWay
from commerce.payments.provider_port import BankCard, PaymentAction, PaymentFlow, PaymentWebhook

Status = Literal["pending", "authorised", "captured", "failed", "closed"]
Task = Literal["create", "query", "close", "recover_order", "update_order"]
TASKS: tuple[Task, ...] = get_args(Task)
RefundStatus = Literal["pending", "needs_other_way", "done", "failed"]
"""`failed`: this attempt can never succeed; `needs_other_way`: the payment cannot be refunded"""
WaitReason = Literal["pace", "merchant_balance", "frequency", "frozen", "busy"]
OtherWayReason = Literal[
    "window_over", "too_many_parts", "account_closed", "not_refundable", "closed", "abnormal", "by_staff"
]
INTERNAL_METHODS: tuple[Method, ...] = ("balance", "cod")
"""methods that need no provider"""


Proof = Annotated[str, filled_line(200)]


class TenderInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the total with its method.

    `payer` is the provider's own id of the customer (for jsapi). `return_url` is the page of the shop to which the
    provider's page leads back. `payer_ip` is the customer's network address (for WeChat Pay's mobile_page); if it is
    left out, that of the request."""

    method: Method
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**15)]
    flow: PaymentFlow | None = None
    payer: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")] | None = None
    return_url: Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[!-~]+\Z")] | None = None
    payer_ip: Annotated[str, msgspec.Meta(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+\Z")] | None = None


class StartPayments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tenders of an order. Without `payments`, those of the order itself."""

    payments: Annotated[list[TenderInput], msgspec.Meta(max_length=8)] = []


class RefundView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refund with its reason. `way` is how the money was returned.

    One that needs another way says why in `other_way_reason`: its customer may accept store credit. Only staff see
    failed attempts that were followed by another, and the last four fields."""

    refund_id: UUID
    amount: Minor
    status: RefundStatus
    reason: str
    created_at: datetime
    way: RefundWay | None = None
    other_way_reason: OtherWayReason | None = None
    attempt_no: int | None = None
    wait_reason: WaitReason | None = None
    provider_refund_id: str | None = None
    provider_error: str | None = None


class PaymentView(msgspec.Struct, frozen=True):
    """A payment of an order. `action` is the customer's next step; a replaced payment is not `current`.

    `collected` is the cash of a payment on delivery that was collected so far, `captured` what counts as paid.
    `provider_error` is the provider's own text of a refusal; only staff see it."""

    payment_id: UUID
    method: Method
    amount: Money
    status: Status
    current: bool
    expires_at: datetime
    action: PaymentAction | None = None
    reason: str | None = None
    provider_error: str | None = None
    collected: Minor = 0
    captured: Minor = 0
    refunded: Minor = 0
    refunds: list[RefundView] = []


class OrderPayments(msgspec.Struct, frozen=True):
    """An order's payments, with the total and what is captured and not refunded."""

    order_id: UUID
    total: Money
    net_captured: Minor
    payments: list[PaymentView]


class CashWaiverInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason why cash that is missing need not be paid; the customer sees it among the order's events."""

    reason: Reason


class ConsentInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer's consent to store credit, as staff have it: when and how it was given."""

    proof: Proof


class TransferInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bank transfer to a customer that was made: its reference at the bank."""

    reference: Proof


class OtherWayInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The finding of staff that a parked refund cannot go back to its payment."""

    reason: Reason


class RefundRedirectInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The debit card for an abnormal refund; without one the money goes to the merchant's account."""

    card: BankCard | None = None


class StuckRefundView(msgspec.Struct, frozen=True):
    """A refund that needs another way, for staff.

    `transfer_reference` is that of a transfer that one person has recorded and nobody has confirmed."""

    refund_id: UUID
    order_id: UUID
    payment_id: UUID
    user_id: str
    method: Method
    amount: Money
    reason: str
    other_way_reason: OtherWayReason
    since: datetime
    provider_refund_id: str | None
    provider_error: str | None
    transfer_reference: str | None
    transfer_recorded_by: str | None


class StoreCreditGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Store credit granted by staff. A repeat under the same key changes nothing."""

    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=r"^[!-~]+\Z")]
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**12)]
    currency: Currency

    def __post_init__(self) -> None:
        minor_digits(self.currency)


class StoreCredit(msgspec.Struct, frozen=True):
    """A customer's store credit by currency."""

    user_id: str
    balances: list[Money]


class Payment(msgspec.Struct, frozen=True):
    """A row of `payments`, with the next task of its job."""

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
    subject: str | None
    return_url: str | None
    payer_ip: str | None
    provider_error: str | None
    captured_at: datetime | None
    uncollected_minor: int = 0

    @property
    def is_internal(self) -> bool:
        """True if no provider takes part."""
        return self.method in INTERNAL_METHODS

    @property
    def amount(self) -> Money:
        return Money(self.amount_minor, self.currency)

    @property
    def captured_minor(self) -> int:
        """The captured amount: 0 until it is captured, and less than the amount if not all cash was collected."""
        return self.amount_minor - self.uncollected_minor if self.status == "captured" else 0


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
    actor: str
    attempt_no: int
    retries: UUID | None
    requested_at: datetime | None
    provider_refund_id: str | None
    provider_error: str | None
    wait_reason: WaitReason | None
    waiting_since: datetime | None
    wait_announced: bool
    way: RefundWay | None
    other_way_reason: OtherWayReason | None
    other_way_since: datetime | None


class RefundToRequest(msgspec.Struct, frozen=True):
    """A refund with the fields of its payment that the call needs."""

    refund: Refund
    method: Method
    user_id: str
    captured_minor: int


class OrderOfPayment(NamedTuple):
    """The fields of a locked order on which its payments depend."""

    order_id: UUID
    status: OrderStatus
    cancel_reason: str | None


WebhookKey = tuple[str, str]
"""method and webhook id"""


class ReceivedWebhook(NamedTuple):
    """A verified webhook of a provider, with its body."""

    method: Method
    webhook: PaymentWebhook
    body: bytes

    @property
    def key(self) -> WebhookKey:
        return self.method, self.webhook.webhook_id


class RequestedPayment(NamedTuple):
    """A payment that its provider has accepted, with the customer's action and the time of the first poll."""

    job: Job
    order_id: UUID
    action: PaymentAction
    poll_at: datetime
