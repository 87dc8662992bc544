"""WeChat Pay's payments and refunds in our words."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from commerce.kernel.moments import parse_moment
from commerce.kernel.money import Money
from commerce.payments.provider_port import ProviderPayment, ProviderRefund, RefundRequest
from commerce.payments.providers.wechatpay import messages, status_map

CURRENCY = "CNY"


class RefundIds(NamedTuple):
    """A refund and its payment."""

    payment_id: UUID
    refund_id: UUID


def to_provider_payment(payment_id: UUID, trade: messages.WeChatTrade) -> ProviderPayment:
    """Read a payment.

    Raises `ValueError` if a captured one lacks a field, and `ExternalOutcomeUnknown` for an unknown state."""
    state = status_map.map_payment_state(trade.trade_state)
    if state != "captured":
        return ProviderPayment(payment_id, state)
    if trade.amount is None or not trade.transaction_id or not trade.success_time:
        raise ValueError("a captured payment needs amount, transaction_id and success_time")
    if trade.amount.currency not in (None, CURRENCY):
        raise ValueError(f"the currency is not {CURRENCY}")
    captured_at = parse_moment(trade.success_time)
    return ProviderPayment(payment_id, state, Money(trade.amount.total, CURRENCY), trade.transaction_id, captured_at)


def to_provider_refund(
    ids: RefundRequest | RefundIds, status: str, amount: messages.RefundAmount, number: str | None
) -> ProviderRefund:
    """Read a refund. `number` is WeChat Pay's own. Raises `ExternalOutcomeUnknown` for an unknown status."""
    state = status_map.map_refund_state(status)
    return ProviderRefund(
        payment_id=ids.payment_id,
        refund_id=ids.refund_id,
        state=state,
        amount=Money(amount.refund, CURRENCY),
        reason=f"the status at WeChat Pay is {status}" if state == "failed" else "",
        failure=status_map.FAILURES.get(status),
        provider_refund_id=number,
    )
