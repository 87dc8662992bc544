"""Alipay's words for what became of a payment, or why not, in ours. A word that is not here is never guessed.

Sources: https://docs.open.alipay.com/api_1/alipay.trade.query and its neighbours .close, .refund, .precreate and
.fastpay.refund.query; https://opendocs.alipay.com/common/02km9f (codes of the gateway).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.payments.provider_port import PaymentState

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
"""What is said to who wants to close a trade that waits no more; whether it was paid takes a query to tell."""

_REFUSED_CODES = frozenset({"40001", "40002", "40003", "40006"})
"""The gateway says that the request is wrong or not allowed; it has not been carried out."""
_REFUSED_WORDS = NOT_WAITING | {
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
    "ACQ.REASON_TRADE_BEEN_FREEZEN",
    "ACQ.DISCORDANT_REPEAT_REQUEST",
}
"""Business errors (40004) that the same request meets again. ACQ.SELLER_BALANCE_NOT_ENOUGH is not among them: once the
shop has money in its account again, the same refund under the same number succeeds. Nor is ACQ.SYSTEM_ERROR."""


def check(method: str, content: Mapping[str, Any]) -> None:
    """Whether it was done. Raises `Refused` for a no that stays one, with Alipay's sub_code, and `Unclear` otherwise:
    20000 and ACQ.SYSTEM_ERROR (nobody knows), 40005 (too many calls), and every word that is not known here."""
    code, word = content.get("code"), content.get("sub_code")
    if code == DONE:
        return
    why = str(content.get("sub_msg") or content.get("msg") or "")[:200]
    if code in _REFUSED_CODES or (code == "40004" and word in _REFUSED_WORDS):
        raise ExternalRefusal(str(word or code), f"{method}: {why}")
    raise ExternalOutcomeUnknown(f"{method}: {code} {word}: {why}")


def payment_state(status: object, *, was_paid: bool) -> PaymentState:
    """A trade_status in our words. Raises `Unclear`.

    TRADE_CLOSED stands for two things: nobody paid in time, or all of the money went back after payment, which here is
    still `captured`. Alipay tells them apart by the time of payment, which a trade that was never paid has not:
    send_pay_date in the answer to a query, gmt_payment in a callback. The amounts do not serve: buyer_pay_amount
    is 0.00 after a refund, and refund_fee is 0.00 on trades that nobody paid.
    """
    match status:
        case "WAIT_BUYER_PAY":
            return "waiting"
        case "TRADE_SUCCESS" | "TRADE_FINISHED":
            return "captured"
        case "TRADE_CLOSED":
            return "captured" if was_paid else "closed"
    raise ExternalOutcomeUnknown(f"nobody knows what trade_status {str(status)[:40]!r} means")
