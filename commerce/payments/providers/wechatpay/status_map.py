"""WeChat Pay's words for what became of a payment, of a refund or of a request, in ours. An unknown one is not guessed.

Payments: https://pay.weixin.qq.com/doc/v3/merchant/4012556352, refunds: …/4013071031, errors: …/4012556398.
"""

from __future__ import annotations

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.payments.provider_port import PaymentState, RefundState

PAYMENTS: dict[str, PaymentState] = {
    "SUCCESS": "captured",
    "REFUND": "captured",  # money was taken, and some or all of it has gone back
    "NOTPAY": "waiting",
    "USERPAYING": "waiting",
    "PAYERROR": "waiting",  # this attempt failed; until it is closed nothing says that there is no other
    "CLOSED": "closed",
    "REVOKED": "closed",
}
REFUNDS: dict[str, RefundState] = {
    "SUCCESS": "done",
    "PROCESSING": "waiting",
    "ABNORMAL": "failed",  # the customer's bank takes no money: nothing more happens until staff acts
    "CLOSED": "failed",  # the merchant had no money for it for seven days; another try needs a new number
}
ABSENT = frozenset({"ORDER_NOT_EXIST", "RESOURCE_NOT_EXISTS"})

# 4xx only; with 429 and 5xx nothing is certain, whatever the word. NOT_ENOUGH (the merchant's balance does not cover a
# refund) and RULE_LIMIT (too often) are not here, because the same request is meant to be sent again later.
_REFUSALS = frozenset(
    {
        *("PARAM_ERROR", "INVALID_REQUEST", "SIGN_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS"),
        *("OPENID_MISMATCH", "ACCOUNT_ERROR", "USER_ACCOUNT_ABNORMAL", "OUT_TRADE_NO_USED", "TRADE_ERROR"),
        *("ORDERPAID", "ORDER_CLOSED", *ABSENT),
    }
)


def payment_state(word: str) -> PaymentState:
    """Raises `Unclear` for a word that is not known."""
    if word not in PAYMENTS:
        raise ExternalOutcomeUnknown(f"WeChat Pay has a trade_state that we do not know: {word[:40]!r}")
    return PAYMENTS[word]


def refund_state(word: str) -> RefundState:
    """Raises `Unclear` for a word that is not known."""
    if word not in REFUNDS:
        raise ExternalOutcomeUnknown(f"WeChat Pay has a refund status that we do not know: {word[:40]!r}")
    return REFUNDS[word]


def failure(status: int, code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """What an answer that is no success means."""
    is_no = 400 <= status < 500 and status != 429 and code in _REFUSALS
    if is_no and (status == 404) == (code in ABSENT):
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"WeChat Pay answers {status} {code[:40]}: {detail[:200]}")
