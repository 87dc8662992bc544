"""WeChat Pay's states and error codes in our words. An unknown one is never guessed.

Payments: https://pay.weixin.qq.com/doc/v3/merchant/4012556352, refunds: …/4013071031, errors: …/4012556398.
"""

from __future__ import annotations

from commerce.kernel.external import DelayReason, ExternalDelay, ExternalOutcomeUnknown, ExternalRefusal
from commerce.payments.provider_port import PaymentState, RefundFailure, RefundState

PAYMENTS: dict[str, PaymentState] = {
    "SUCCESS": "captured",
    "REFUND": "captured",  # money was taken, and some or all of it was refunded
    "NOTPAY": "waiting",
    "USERPAYING": "waiting",
    "PAYERROR": "waiting",  # this attempt failed; until the payment is closed there may be another
    "CLOSED": "closed",
    "REVOKED": "closed",
}
REFUNDS: dict[str, RefundState] = {
    "SUCCESS": "done",
    "PROCESSING": "waiting",
    "ABNORMAL": "failed",  # the customer's bank does not accept the money: staff must act
    "CLOSED": "failed",  # the merchant had no money for it for seven days; another attempt needs a new number
}
FAILURES: dict[str, RefundFailure] = {"ABNORMAL": "abnormal", "CLOSED": "closed"}
REFUND_FAILURES: dict[str, RefundFailure] = {
    "USER_ACCOUNT_ABNORMAL": "account_closed",  # the customer has closed the account: to be refunded another way
    "TRADE_OVERDUE": "window_over",  # in the words of the older interface
}
"""errors of a refund that can never be made"""
ABSENT = frozenset({"ORDER_NOT_EXIST", "RESOURCE_NOT_EXISTS"})

_DELAYS: dict[tuple[int, str], DelayReason] = {
    (403, "NOT_ENOUGH"): "merchant_balance",
    (429, "FREQUENCY_LIMITED"): "frequency",
    (429, "RATELIMIT_EXCEEDED"): "frequency",
    (400, "RULE_LIMIT"): "frequency",
    (403, "RULE_LIMIT"): "frequency",
}
"""errors by which nothing was done, and the same request may succeed later"""
# For 4xx only: with 5xx, and 429 with another code than above, the outcome is unknown.
_REFUSALS = frozenset(
    {
        *("PARAM_ERROR", "INVALID_REQUEST", "SIGN_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS"),
        *("OPENID_MISMATCH", "ACCOUNT_ERROR", "USER_ACCOUNT_ABNORMAL", "OUT_TRADE_NO_USED", "TRADE_ERROR"),
        *("ORDERPAID", "ORDER_CLOSED", "TRADE_OVERDUE", *ABSENT),
    }
)


def map_payment_state(trade_state: str) -> PaymentState:
    """Map a trade_state to our state. Raises `ExternalOutcomeUnknown` for an unknown one."""
    if trade_state not in PAYMENTS:
        raise ExternalOutcomeUnknown(f"WeChat Pay sends an unknown trade_state: {trade_state[:40]!r}")
    return PAYMENTS[trade_state]


def map_refund_state(status: str) -> RefundState:
    """Map a refund status to our state. Raises `ExternalOutcomeUnknown` for an unknown one."""
    if status not in REFUNDS:
        raise ExternalOutcomeUnknown(f"WeChat Pay sends an unknown refund status: {status[:40]!r}")
    return REFUNDS[status]


def map_error(status: int, code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """Return the exception for a response that is no success."""
    if reason := _DELAYS.get((status, code)):
        return ExternalDelay(code, reason, detail[:200])
    is_refusal = 400 <= status < 500 and status != 429 and code in _REFUSALS
    if is_refusal and (status == 404) == (code in ABSENT):
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"WeChat Pay answers {status} {code[:40]}: {detail[:200]}")
