"""Alipay's trade statuses and error codes in our words. An unknown one is never guessed.

Sources: https://docs.open.alipay.com/api_1/alipay.trade.query and its siblings .close, .refund, .precreate and
.fastpay.refund.query; https://opendocs.alipay.com/common/02km9f (codes of the gateway).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commerce.kernel.external import DelayReason, ExternalDelay, ExternalOutcomeUnknown, ExternalRefusal
from commerce.payments.provider_port import PaymentState, RefundFailure

DONE = "10000"
NO_TRADE = "ACQ.TRADE_NOT_EXIST"
NOT_WAITING = frozenset(
    {
        "ACQ.TRADE_STATUS_ERROR",
        "ACQ.REASON_TRADE_STATUS_INVALID",
        "ACQ.REASON_ILLEGAL_STATUS",
        "ACQ.TRADE_HAS_SUCCESS",
        "ACQ.TRADE_HAS_FINISHED",
        "ACQ.TRADE_HAS_CLOSE",
    }
)
"""errors of closing a trade that is not pending any more; only a query shows if it was paid"""

_REFUSED_CODES = frozenset({"40001", "40002", "40003", "40006"})
"""the request is wrong or not allowed, and was not carried out"""
_REFUSED_SUB_CODES = NOT_WAITING | {
    NO_TRADE,
    "ACQ.INVALID_PARAMETER",
    "ACQ.ACCESS_FORBIDDEN",
    "ACQ.EXIST_FORBIDDEN_WORD",
    "ACQ.PARTNER_ERROR",
    "ACQ.TOTAL_FEE_EXCEED",
    "ACQ.CONTEXT_INCONSISTENT",
    "ACQ.BUYER_SELLER_EQUAL",
    "ACQ.TRADE_NOT_ALLOW_REFUND",
    "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL",
    "ACQ.REFUND_FEE_ERROR",
    "ACQ.REASON_TRADE_REFUND_FEE_ERR",
    "ACQ.DISCORDANT_REPEAT_REQUEST",
    "ACQ.CURRENCY_NOT_SUPPORT",
    "ACQ.CUSTOMER_VALIDATE_ERROR",  # closed or frozen, which are different things: a person looks
    "ACQ.REFUND_ACCOUNT_NOT_EXIST",
    "ACQ.TRADE_SETTLE_ERROR",
    "ACQ.USER_NOT_MATCH_ERR",
    "ACQ.BUYER_NOT_EXIST",
    "ACQ.BUYER_ERROR",
    "ACQ.BUYER_ENABLE_STATUS_FORBID",
    "ACQ.NOT_ALLOW_PARTIAL_REFUND",
    "ACQ.ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND",
}
"""business errors (40004) that a repeated request gets again; ACQ.SYSTEM_ERROR is not among them"""
_DELAYS: dict[str, DelayReason] = {
    "ACQ.SELLER_BALANCE_NOT_ENOUGH": "merchant_balance",
    "ACQ.REASON_TRADE_BEEN_FREEZEN": "frozen",
    "ACQ.REFUND_CHARGE_ERROR": "busy",
}
"""business errors by which nothing was done: the same refund with the same number succeeds later"""
_TOO_MANY_CALLS = "40005"
REFUND_FAILURES: dict[str, RefundFailure] = {
    "ACQ.TRADE_HAS_FINISHED": "window_over",
    "ACQ.BUYER_NOT_EXIST": "account_closed",
    "ACQ.BUYER_ERROR": "account_closed",
    "ACQ.BUYER_ENABLE_STATUS_FORBID": "account_closed",
    "ACQ.TRADE_NOT_ALLOW_REFUND": "not_refundable",
    "ACQ.NOT_ALLOW_PARTIAL_REFUND": "not_refundable",
    "ACQ.ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND": "not_refundable",
}
"""errors of a refund for which Alipay says to pay the customer outside of it

ACQ.TRADE_HAS_CLOSE is not among them: the trade may be refunded already, so a person looks."""


def raise_for_error(method: str, content: Mapping[str, Any]) -> None:
    """Raise an error unless the request was carried out.

    Raises `ExternalRefusal` with Alipay's sub_code if a repeat would be refused too, `ExternalDelay` if it may succeed
    later (such as 40005, too many calls), and `ExternalOutcomeUnknown` otherwise: for 20000 and ACQ.SYSTEM_ERROR, and
    every code not listed here."""
    code, sub_code = content.get("code"), content.get("sub_code")
    if code == DONE:
        return
    reason = str(content.get("sub_msg") or content.get("msg") or "")[:200]
    if code == _TOO_MANY_CALLS:
        raise ExternalDelay(code, "frequency", f"{method}: {reason}")
    if code == "40004" and sub_code in _DELAYS:
        raise ExternalDelay(sub_code, _DELAYS[sub_code], f"{method}: {reason}")
    if code in _REFUSED_CODES or (code == "40004" and sub_code in _REFUSED_SUB_CODES):
        raise ExternalRefusal(str(sub_code or code), f"{method}: {reason}")
    raise ExternalOutcomeUnknown(f"{method}: {code} {sub_code}: {reason}")


def map_payment_state(status: object, *, was_paid: bool) -> PaymentState:
    """Map a trade_status to our state. Raises `ExternalOutcomeUnknown` for an unknown one.

    TRADE_CLOSED means that the trade was not paid in time, or that it was paid and refunded completely, which is still
    `captured` here. The time of payment distinguishes them, since only a paid trade has it: send_pay_date in a query's
    response, gmt_payment in a webhook. The amounts do not: buyer_pay_amount is 0.00 after a refund, and refund_fee is
    0.00 on unpaid trades."""
    match status:
        case "WAIT_BUYER_PAY":
            return "waiting"
        case "TRADE_SUCCESS" | "TRADE_FINISHED":
            return "captured"
        case "TRADE_CLOSED":
            return "captured" if was_paid else "closed"
    raise ExternalOutcomeUnknown(f"unknown trade_status {str(status)[:40]!r}")
