"""Decides the steps of a refund: its requests, its end, and whether it needs another way.

As in `order_status.py`, the functions change the copy of a locked order and note what is to be written. Its states:

    pending ──▶ done (by the provider)
      │ └─────▶ failed (the provider closed the number), and another attempt is pending
      └───────▶ needs_other_way ──▶ done (store credit, transfer) │ done (by the provider after all)
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from commerce.kernel.external import DelayReason
from commerce.kernel.money import Money, format_money
from commerce.orders.model import RefundWay
from commerce.orders.store import StoryEvent
from commerce.payments.model import OtherWayReason, Payment, Refund
from commerce.payments.order_status import (
    CompletedRefund,
    FailedRefund,
    LockedOrder,
    NewRefund,
    ProviderMismatch,
    StuckRefund,
    WaitingRefund,
)
from commerce.payments.provider_port import ProviderPayment, ProviderRefund

_UNCERTAIN = timedelta(minutes=9)
"""time after a request in which a provider may not know yet that it accepted it; less than a wait"""
RefundResult = Literal["refunded", "unchanged"]
StepResult = Literal["requested", "waiting", "failed", "needs_other_way", "unchanged"]


class RefundLimits(Protocol):
    """Limits of a provider for the refunds of one payment: a section of the settings."""

    @property
    def window_days(self) -> int: ...
    @property
    def min_interval_s(self) -> float: ...
    @property
    def refunds_per_payment(self) -> int: ...


class RefundRules(NamedTuple):
    """Limits of a refund's provider, its attempts, and the wait that is announced to the customer."""

    limits: RefundLimits
    attempts: int
    long_wait_s: float


class RefundStart(NamedTuple):
    """A refund that its provider is to be asked for."""

    payment_id: UUID
    refund_id: UUID
    rules: RefundRules


class RefundDelay(NamedTuple):
    """A refund that its provider does not make now, with its words."""

    payment_id: UUID
    refund_id: UUID
    reason: DelayReason
    error: str
    rules: RefundRules


class RefundFailed(NamedTuple):
    """A refund that its provider cannot make, with its words."""

    payment_id: UUID
    refund_id: UUID
    provider_refund: ProviderRefund
    rules: RefundRules


RefundStep = RefundStart | RefundDelay | RefundFailed


def find_refund(order: LockedOrder, payment: Payment, provider_refund: ProviderRefund) -> Refund:
    """Return the refund that a provider means.

    Raises `ProviderMismatch` if the payment has none, or if its amount is another."""
    refund = _find(order, payment, provider_refund.refund_id)
    if refund is None:
        raise ProviderMismatch(f"there is no refund {provider_refund.refund_id} of this payment")
    amount = Money(refund.amount_minor, refund.currency)
    if provider_refund.amount not in (None, amount):
        raise ProviderMismatch(f"{payment.method} refunded {provider_refund.amount}, but the refund is {amount}")
    return refund


def check_refunded(order: LockedOrder, payment: Payment, provider_payment: ProviderPayment) -> None:
    """Raise `ProviderMismatch` if a provider has refunded more than was requested: it was done by hand."""
    refunds = [
        refund for refund in order.refunds if refund.payment_id == payment.payment_id and refund.status != "failed"
    ]
    requested_minor = sum(refund.amount_minor for refund in refunds if refund.way in (None, "provider"))
    refunded = provider_payment.refunded
    if refunded is not None and refunded.amount > requested_minor:
        requested = format_money(requested_minor, payment.currency)
        raise ProviderMismatch(
            f"{payment.method} refunded {format_money(refunded.amount, refunded.currency)}, of which {requested} were "
            "requested: was it refunded at the provider by hand?"
        )


def record_refund(order: LockedOrder, payment: Payment, provider_refund: ProviderRefund) -> RefundResult:
    """Complete a refund that its provider has made; `unchanged` if it was done before.

    Raises as `find_refund`, and `ProviderMismatch` if the money was returned another way or under another number."""
    refund = find_refund(order, payment, provider_refund)
    if refund.status == "failed":
        raise ProviderMismatch(f"{payment.method} made a refund that it had closed: it may be paid twice")
    if refund.status == "done" and refund.way not in (None, _way_of(payment)):
        raise ProviderMismatch(f"{payment.method} made a refund that is done by {refund.way}: it is paid twice")
    if refund.status == "done":
        return "unchanged"
    complete(order, payment, refund, _way_of(payment), provider_refund.provider_refund_id)
    return "refunded"


def complete(
    order: LockedOrder, payment: Payment, refund: Refund, way: RefundWay, provider_refund_id: str | None = None
) -> None:
    """Note that the money of a refund is back at the customer."""
    order.changes.completed_refunds.append(CompletedRefund(payment, refund, way, provider_refund_id))
    order.replace_refund(refund, status="done", way=way, other_way_since=None, wait_reason=None, waiting_since=None)
    manner = {"provider": f"by {payment.method}", "store_credit": "as store credit", "transfer": "by bank transfer"}[
        way
    ]
    _announce(order, refund, f"{_amount(refund)} was refunded {manner}", way=way)


def take_step(order: LockedOrder, step: RefundStep, now: datetime) -> StepResult:
    """Take the next step of a pending refund; `unchanged` if it is no longer pending."""
    payment = order.payments[step.payment_id]
    refund = _find(order, payment, step.refund_id)
    if refund is None or refund.status != "pending":
        return "unchanged"
    if isinstance(step, RefundStart):
        return _start(order, payment, refund, step.rules, now)
    if isinstance(step, RefundDelay):
        _wait(order, refund, step, now)
        return "waiting"
    return _fail(order, payment, refund, step, now)


def need_other_way(
    order: LockedOrder,
    refund: Refund,
    reason: OtherWayReason,
    now: datetime,
    error: str | None = None,
    provider_refund_id: str | None = None,
) -> None:
    """Note that the money of a pending refund cannot go back to its payment."""
    order.changes.stuck_refunds.append(StuckRefund(refund, reason, error, provider_refund_id))
    order.replace_refund(refund, status="needs_other_way", other_way_reason=reason, other_way_since=now)
    text = f"{_amount(refund)} cannot be refunded to the payment: you may accept it as store credit, or we transfer it"
    _announce(order, refund, text, other_way_reason=reason)


def build_story_of_new(refund_id: UUID, refund: NewRefund) -> StoryEvent:
    """Return what the customer reads about a new refund; one of the shop's own methods is done at once."""
    currency, order_id = refund.payment.currency, refund.payment.order_id
    amount = format_money(refund.amount_minor, currency)
    details = {"refund_id": str(refund_id), "amount": refund.amount_minor, "currency": currency}
    if refund.payment.is_internal:
        return StoryEvent(order_id, "refund", f"{amount} was refunded as store credit: {refund.reason}", details)
    return StoryEvent(order_id, "refund", f"a refund of {amount} was requested: {refund.reason}", details)


def is_window_over(payment: Payment, limits: RefundLimits, now: datetime) -> bool:
    """Tell if the provider refunds a captured payment no more."""
    return payment.captured_at is not None and now >= payment.captured_at + timedelta(days=limits.window_days)


def _start(order: LockedOrder, payment: Payment, refund: Refund, rules: RefundRules, now: datetime) -> StepResult:
    limits = rules.limits
    others = [
        other
        for other in order.refunds
        if other.payment_id == payment.payment_id and other.refund_id != refund.refund_id and other.requested
    ]
    if refund.requested_at is not None and refund.requested_at > now - _UNCERTAIN:
        # The provider may be about to make it, though it does not know it yet: it repeats no refund of one number.
        order.changes.requested_refunds.append(refund.refund_id)
        return "requested"
    if is_window_over(payment, limits, now):
        need_other_way(order, refund, "window_over", now)
        return "needs_other_way"
    if sum(other.status != "failed" for other in others) >= limits.refunds_per_payment:
        need_other_way(order, refund, "too_many_parts", now)
        return "needs_other_way"
    earliest = now - timedelta(seconds=limits.min_interval_s)
    if any(other.requested_at is not None and other.requested_at > earliest for other in others):
        order.changes.waiting_refunds.append(WaitingRefund(refund, "pace"))
        return "waiting"
    order.changes.requested_refunds.append(refund.refund_id)
    order.replace_refund(refund, requested=True, requested_at=now)
    return "requested"


def _wait(order: LockedOrder, refund: Refund, delay: RefundDelay, now: datetime) -> None:
    waited = now - (refund.waiting_since or now)
    is_long = waited >= timedelta(seconds=delay.rules.long_wait_s) and not refund.wait_announced
    order.changes.waiting_refunds.append(WaitingRefund(refund, delay.reason, delay.error, is_long))
    if is_long:
        _announce(
            order, refund, f"the refund of {_amount(refund)} takes longer than usual: it is tried again and again"
        )


def _fail(order: LockedOrder, payment: Payment, refund: Refund, step: RefundFailed, now: datetime) -> StepResult:
    failed, rules = step.provider_refund, step.rules
    number, error = failed.provider_refund_id, failed.reason or f"{payment.method} names no reason"
    failure = failed.failure or "not_refundable"
    can_retry = refund.attempt_no < rules.attempts and not is_window_over(payment, rules.limits, now)
    if failure != "closed" or not can_retry:
        need_other_way(order, refund, failure, now, error, number)
        return "needs_other_way"
    order.changes.failed_refunds.append(FailedRefund(refund, error, number))
    order.replace_refund(refund, status="failed")
    order.changes.new_refunds.append(
        NewRefund(
            *(payment, refund.refund_key, refund.amount_minor, refund.reason, refund.actor),
            attempt_no=refund.attempt_no + 1,
            retries=refund.refund_id,
        )
    )
    return "failed"


def _find(order: LockedOrder, payment: Payment, refund_id: UUID) -> Refund | None:
    wanted = (refund_id, payment.payment_id)
    return next((refund for refund in order.refunds if (refund.refund_id, refund.payment_id) == wanted), None)


def _way_of(payment: Payment) -> RefundWay:
    """Return the way of a payment's refunds: those of the shop's own methods are store credit."""
    return "store_credit" if payment.is_internal else "provider"


def _amount(refund: Refund) -> str:
    return format_money(refund.amount_minor, refund.currency)


def _announce(order: LockedOrder, refund: Refund, reason: str, **details: str) -> None:
    amount = {"refund_id": str(refund.refund_id), "amount": refund.amount_minor, "currency": refund.currency}
    order.changes.story.append(StoryEvent(order.order_id, "refund", reason, {**amount, **details}))
