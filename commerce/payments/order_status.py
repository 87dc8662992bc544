"""The one place that decides an order's status from its payments, and its payments from its status.

Webhooks, polling, deadlines, cancellations and staff all lock the order first and read it as a `LockedOrder`, which is
`locked_orders.py`. The functions here change that copy, and note what is to be written. Each caller sees the complete
result of the one before, and each of them alone is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.orders.model import OrderStatus, RefundWay
from commerce.orders.store import StatusStep, StoryEvent
from commerce.payments.model import OtherWayReason, Payment, Refund, WaitReason
from commerce.payments.provider_port import ProviderPayment

ACTOR = "payment_worker"
COLLECTED = "collected"
"""ledger account of collected cash until its payment is captured"""
_WHOLE = "whole"
"""refund key of all that is left of a payment"""
CaptureResult = Literal["captured", "unchanged"]
FinalStatus = Literal["failed", "closed"]


class ProviderMismatch(Exception):
    """A contradiction between a provider and our records.

    The payment stays as it is, and staff resolve it."""


class Capture(NamedTuple):
    """A payment that was captured."""

    payment: Payment
    captured_at: datetime
    transaction_id: str | None
    uncollected_minor: int = 0

    @property
    def source(self) -> str:
        """The ledger account from which the money comes."""
        sources = {"balance": f"credit:{self.payment.user_id}", "cod": COLLECTED}
        return sources.get(self.payment.method, f"provider:{self.payment.method}")


class Ending(NamedTuple):
    """The end of a payment that took no money and will take none.

    Customers see `reason`, and only staff `provider_error`."""

    payment_id: UUID
    status: FinalStatus
    reason: str
    provider_error: str | None = None


class NewRefund(NamedTuple):
    """A refund to request, once per payment, key and attempt.

    `retries` is the failed attempt before it. If it `is_announced`, the customer reads of it in another event."""

    payment: Payment
    refund_key: str
    amount_minor: int
    reason: str
    actor: str
    attempt_no: int = 1
    retries: UUID | None = None
    is_announced: bool = False


class CompletedRefund(NamedTuple):
    """A refund that is done, with its payment and how the money was returned."""

    payment: Payment
    refund: Refund
    way: RefundWay
    provider_refund_id: str | None = None


class FailedRefund(NamedTuple):
    """An attempt that can never succeed."""

    refund: Refund
    error: str
    provider_refund_id: str | None


class StuckRefund(NamedTuple):
    """A refund that cannot go back to its payment."""

    refund: Refund
    reason: OtherWayReason
    error: str | None
    provider_refund_id: str | None


class WaitingRefund(NamedTuple):
    """A refund that is not asked for now, or that its provider does not make now."""

    refund: Refund
    reason: WaitReason
    error: str | None = None
    is_long: bool = False


@dataclass
class OrderChanges:
    """Changes of one order and its payments that were decided and are to be written."""

    finished: list[UUID] = field(default_factory=list)
    """payments whose job is done"""
    captures: list[Capture] = field(default_factory=list)
    authorised: list[UUID] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    closing: list[UUID] = field(default_factory=list)
    """pending payments that the payment worker closes"""
    new_refunds: list[NewRefund] = field(default_factory=list)
    requested_refunds: list[UUID] = field(default_factory=list)
    """refunds that their providers are about to be asked for"""
    completed_refunds: list[CompletedRefund] = field(default_factory=list)
    failed_refunds: list[FailedRefund] = field(default_factory=list)
    stuck_refunds: list[StuckRefund] = field(default_factory=list)
    waiting_refunds: list[WaitingRefund] = field(default_factory=list)
    story: list[StoryEvent] = field(default_factory=list)
    """events of refunds for the customer"""
    recovering: list[UUID] = field(default_factory=list)
    """payments of expired orders whose stock the payment worker reacquires, if there is any"""
    steps: list[StatusStep] = field(default_factory=list)

    @property
    def may_move_order(self) -> bool:
        return bool(self.finished or self.captures or self.authorised or self.endings)


@dataclass
class LockedOrder:
    """An order whose row is locked, with its payments by id, those of the current plan revision last.

    Refunds are read if any payment was captured before."""

    order_id: UUID
    status: OrderStatus
    cancel_reason: str | None
    payments: dict[UUID, Payment]
    refunds: list[Refund]
    changes: OrderChanges = field(default_factory=OrderChanges)
    was_paid: bool = False
    """true if it was cancelled after it was paid or confirmed: refund grants say what comes back"""
    captured_late: set[UUID] = field(default_factory=set)
    """payments that were captured after it was cancelled"""

    def replace_payment(self, payment: Payment, **values: object) -> None:
        self.payments[payment.payment_id] = msgspec.structs.replace(payment, **values)

    def replace_refund(self, refund: Refund, **values: object) -> None:
        self.refunds[self.refunds.index(refund)] = msgspec.structs.replace(refund, **values)


def record_capture(
    order: LockedOrder, payment: Payment, provider_payment: ProviderPayment, now: datetime
) -> CaptureResult:
    """Capture a payment of the order; `unchanged` if it was captured before.

    Raises `ProviderMismatch` if the amount is another, or if it was captured in another transaction of the provider."""
    if provider_payment.amount != payment.amount:
        raise ProviderMismatch(
            f"{payment.method} captured {provider_payment.amount}, but the payment is {payment.amount}"
        )
    transaction_id = provider_payment.transaction_id
    if payment.status == "captured":
        if transaction_id != payment.transaction_id:
            transactions = f"{payment.transaction_id} and again in {transaction_id}"
            raise ProviderMismatch(f"paid in transaction {transactions}")
        return "unchanged"
    order.changes.captures.append(Capture(payment, provider_payment.captured_at or now, transaction_id))
    order.replace_payment(
        payment,
        status="captured",
        transaction_id=transaction_id,
        captured_at=provider_payment.captured_at or now,
        task=None,
    )
    return "captured"


def record_cash(order: LockedOrder, collected_minor: int, now: datetime, *, is_final: bool) -> bool:
    """Capture the payments on delivery with the cash that was collected for them.

    Returns whether any payment changed. `collected_minor` is what is collected and not captured. All payments are
    captured once it covers them. If no more cash can be collected (`is_final`), each is captured with what there is for
    it, in the sequence of the tenders, or closed. Cash for payments that were closed before is captured then, too: it
    was collected all the same."""
    cash = [payment for payment in current_payments(order.payments.values()) if payment.method == "cod"]
    due = [payment for payment in cash if payment.status == "authorised"]
    if not due and is_final and collected_minor:
        due = [payment for payment in cash if payment.status == "closed"]
    if not due or (not is_final and collected_minor < sum(payment.amount_minor for payment in due)):
        return False
    for payment in due:
        captured_minor = min(payment.amount_minor, collected_minor)
        collected_minor -= captured_minor
        if captured_minor:
            capture_cash(order, payment, captured_minor, now)
        else:
            record_ending(order, Ending(payment.payment_id, "closed", "no cash was collected"))
    return bool(order.changes.captures or order.changes.endings)


def capture_cash(order: LockedOrder, payment: Payment, captured_minor: int, now: datetime) -> None:
    """Capture a payment on delivery with so much cash; the rest of it is no longer due."""
    uncollected_minor = payment.amount_minor - captured_minor
    order.changes.captures.append(Capture(payment, now, None, uncollected_minor))
    order.replace_payment(payment, status="captured", uncollected_minor=uncollected_minor, task=None)


def list_due_cash(order: LockedOrder, taken_off_minor: int) -> dict[UUID, int]:
    """Return what is still to be paid on delivery, by payment of the current tenders.

    Grants have taken off `taken_off_minor` in all: of the first payments first."""
    due = dict[UUID, int]()
    for payment in current_payments(order.payments.values()):
        if payment.method == "cod" and payment.status not in ("pending", "failed"):
            due_minor = payment.amount_minor - payment.captured_minor
            due[payment.payment_id] = max(0, due_minor - taken_off_minor)
            taken_off_minor -= due_minor - due[payment.payment_id]
    return due


def record_ending(order: LockedOrder, ending: Ending) -> bool:
    """End a payment of the order. False if it has ended before or is captured."""
    payment = order.payments[ending.payment_id]
    if payment.status not in ("pending", "authorised"):
        return False
    order.changes.endings.append(ending)
    order.replace_payment(payment, status=ending.status, task=None)
    return True


def record_authorisation(order: LockedOrder, payment: Payment) -> None:
    """Note that a pending payment is to be collected on delivery."""
    order.changes.authorised.append(payment.payment_id)
    order.replace_payment(payment, status="authorised", task=None)


def finish_job(order: LockedOrder, payment: Payment) -> None:
    """Remove the job of a payment: nothing is left to do."""
    order.changes.finished.append(payment.payment_id)
    order.replace_payment(payment, task=None)


def update(order: LockedOrder) -> None:
    """Advance the order as far as its payments allow, and close or refund payments it does not need."""
    if not order.payments:
        return
    current = current_payments(order.payments.values())
    replaced = [payment for payment in order.payments.values() if payment not in current]
    # A payment that is being refunded pays for nothing, though its status is still `captured`.
    refunded_ids = {refund.payment_id for refund in order.refunds if refund.status != "failed"}
    has_refunds = any(payment.payment_id in refunded_ids for payment in current)
    _close_or_refund(order, replaced, "it was replaced by another")
    if order.status is OrderStatus.AWAITING_PAYMENT:
        _update_awaiting_order(order, current, has_refunds)
    elif order.status is OrderStatus.CANCELLED:
        _update_cancelled_order(order, current, has_refunds)


def current_payments(payments: Iterable[Payment]) -> list[Payment]:
    """Return the payments of the latest plan revision: only these count for the order."""
    payments = list(payments)
    revision = max((payment.plan_revision for payment in payments), default=0)
    return [payment for payment in payments if payment.plan_revision == revision]


def order_status_from_payments(current: Sequence[Payment]) -> OrderStatus | None:
    """Return the status that these payments allow, or None if they do not pay the order.

    `PAID` if all are captured, `CONFIRMED` if those that are not are cash on delivery."""
    if all(payment.status == "captured" for payment in current):
        return OrderStatus.PAID
    if all(payment.status in ("captured", "authorised") for payment in current):
        return OrderStatus.CONFIRMED
    return None


def _update_awaiting_order(order: LockedOrder, current: Sequence[Payment], has_refunds: bool) -> None:
    if not has_refunds and (status := order_status_from_payments(current)):
        _advance(order, status, "all of it is paid" if status is OrderStatus.PAID else "to be paid on delivery")
    elif has_refunds or any(payment.status in ("failed", "closed") for payment in current):
        # An order is paid whole or not at all; the customer may start again while there is time.
        _close_or_refund(order, current, "another part of the order was not paid")


def _update_cancelled_order(order: LockedOrder, current: Sequence[Payment], has_refunds: bool) -> None:
    if order.cancel_reason == "expired" and not has_refunds and order_status_from_payments(current):
        # The order was paid too late. Its stock is reacquired if there is any, which needs Redis and so is a job.
        if not any(payment.task == "recover_order" for payment in current):
            order.changes.recovering.append(current[0].payment_id)
        return
    if order.was_paid:
        end_payments(order)
        return
    _close_or_refund(order, current, "the order was cancelled")


def end_payments(order: LockedOrder) -> None:
    """Make sure that a cancelled order that was paid before takes no more money.

    What was captured before comes back as refund grants say. What is captured later goes back whole."""
    captured = order.captured_late | {capture.payment.payment_id for capture in order.changes.captures}
    payments = [
        payment
        for payment in current_payments(order.payments.values())
        if payment.status != "captured" or payment.payment_id in captured
    ]
    _close_or_refund(order, payments, "the order was cancelled")


def _advance(order: LockedOrder, status: OrderStatus, reason: str) -> None:
    order.changes.steps.append(StatusStep(order.order_id, order.status, status, reason))
    order.status = status


def refund_late_payments(order: LockedOrder) -> None:
    """Refund all payments of an expired order that the stock or the customer's limit does not allow."""
    reason = "it came too late, and the stock or the customer's limit did not allow it"
    _close_or_refund(order, list(order.payments.values()), reason)


def reinstate(order: LockedOrder) -> None:
    """Advance an expired order whose stock was reacquired.

    Raises `ProviderMismatch` if it is no longer paid."""
    status = order_status_from_payments(current_payments(order.payments.values()))
    if status is None:
        raise ProviderMismatch("the stock was reacquired, but the order is no longer paid")
    _advance(order, status, "paid late, and the stock was still available")


def _close_or_refund(order: LockedOrder, payments: Sequence[Payment], reason: str) -> None:
    """Make sure that none of these payments takes or keeps money."""
    for payment in payments:
        if payment.status == "pending":
            order.changes.closing.append(payment.payment_id)
        elif payment.status == "authorised":
            record_ending(order, Ending(payment.payment_id, "closed", reason))
        elif payment.status == "captured":
            _refund_remaining(order, payment, reason)


def _refund_remaining(order: LockedOrder, payment: Payment, reason: str) -> None:
    """Refund the part of a payment that is not refunded yet, once."""
    refunds = [refund for refund in order.refunds if refund.payment_id == payment.payment_id]
    refunded = sum(refund.amount_minor for refund in refunds if refund.status != "failed")
    amount = payment.captured_minor - refunded
    if amount > 0 and not any(refund.refund_key == _WHOLE for refund in refunds):
        order.changes.new_refunds.append(NewRefund(payment, _WHOLE, amount, reason, ACTOR))
