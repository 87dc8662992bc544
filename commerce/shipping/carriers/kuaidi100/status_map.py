"""kuaidi100's status codes as shipment statuses, and its error codes as refusals or unknown outcomes.

The list: https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc (section on `state`), also at
https://apifox.com/apidoc/project-514987/api-8562559. No code stands for a lost shipment.
"""

from __future__ import annotations

from typing import NamedTuple

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.model import ShipmentStatus


class StatusCode(NamedTuple):
    """kuaidi100's name of a code, and the shipment's status after it; None if it stays the same."""

    name: str
    status: ShipmentStatus | None


_PICKED_UP = ShipmentStatus.PICKED_UP
_IN_TRANSIT = ShipmentStatus.IN_TRANSIT
_OUT_FOR_DELIVERY = ShipmentStatus.OUT_FOR_DELIVERY
_DELIVERED = ShipmentStatus.DELIVERED

STATUS_CODES = {
    # Ordered, not collected yet.
    "101": StatusCode("已下单", None),
    "102": StatusCode("待揽收", None),
    "1": StatusCode("揽收", _PICKED_UP),
    "103": StatusCode("已揽收", _PICKED_UP),
    "0": StatusCode("在途", _IN_TRANSIT),
    "1001": StatusCode("到达派件城市", _IN_TRANSIT),
    "1002": StatusCode("干线", _IN_TRANSIT),
    "1003": StatusCode("转递", _IN_TRANSIT),  # sent on to another address of the recipient
    "7": StatusCode("转投", _IN_TRANSIT),  # handed to another carrier
    "8": StatusCode("清关", _IN_TRANSIT),
    "10": StatusCode("待清关", _IN_TRANSIT),
    "11": StatusCode("清关中", _IN_TRANSIT),
    "12": StatusCode("已清关", _IN_TRANSIT),
    "5": StatusCode("派件", _OUT_FOR_DELIVERY),
    "501": StatusCode("投柜或驿站", _OUT_FOR_DELIVERY),  # in a locker or at a pickup point: nobody has signed for it
    "3": StatusCode("签收", _DELIVERED),
    "301": StatusCode("本人签收", _DELIVERED),
    "302": StatusCode("派件异常后签收", _DELIVERED),
    "303": StatusCode("代签", _DELIVERED),
    "304": StatusCode("投柜或站签收", _DELIVERED),
    # Problems, which leave the status unchanged.
    "2": StatusCode("疑难", None),
    "201": StatusCode("超时未签收", None),
    "202": StatusCode("超时未更新", None),
    "203": StatusCode("拒收", None),  # the recipient wants to refuse it; the sender is to decide
    "204": StatusCode("派件异常", None),
    "205": StatusCode("柜或驿站超时未取", None),
    "206": StatusCode("无法联系", None),
    "207": StatusCode("超区", None),
    "208": StatusCode("滞留", None),
    "209": StatusCode("破损", None),
    "210": StatusCode("销单", None),
    "13": StatusCode("清关异常", None),
    "401": StatusCode("已销单", None),
    "6": StatusCode("退回", None),  # on its way back to the sender
    # Editions of the list differ: "the recipient refuses it", or "… and the sender has signed for it". We assume less.
    "14": StatusCode("拒签", None),
    # Returned and signed for by the sender, according to the list's first edition, which has seven codes.
    "4": StatusCode("退签", ShipmentStatus.RETURNED_TO_SENDER),
}
_CODES_BY_NAME = {status_code.name: code for code, status_code in STATUS_CODES.items()}


class EntryStatus(NamedTuple):
    """The status that an entry of a history states; `is_unknown_code` if the code is not in the list."""

    code: str
    status: ShipmentStatus | None
    is_unknown_code: bool


def decode_status(code: str, name: str) -> EntryStatus:
    """Decode an entry's `statusCode`, or its `status` (the name alone) if it has no code."""
    code = code or _CODES_BY_NAME.get(name, name)
    status_code = STATUS_CODES.get(code)
    return EntryStatus(code or "unsaid", status_code.status if status_code else None, status_code is None)


# Error codes: https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c (subscriptions, field returnCode),
# https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc (queries).

SUBSCRIBED_CODES = frozenset({"200", "501"})
"""kuaidi100 will send webhooks. 501: an earlier subscription is still active."""
_SUBSCRIBE_REFUSALS = frozenset(
    {
        "600",  # the key is unknown
        "700",  # the carrier's code, the number or the address for webhooks is invalid
        "701",  # the carrier does not allow queries
        "702",  # no carrier is found for the number
    }
)
NO_HISTORY_CODES = frozenset({"500", "201"})
"""No result for the number yet. 201 comes as the `status` of a history instead of a returnCode."""
_QUERY_REFUSALS = frozenset(
    {
        "400",  # the carrier's code or the number is invalid, or the account has no permission
        "408",  # the carrier has another telephone number of the recipient
        "503",  # the signature is wrong: customer or key
    }
)


def subscribe_error(code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """Map a returnCode outside of `SUBSCRIBED_CODES` to an exception.

    500, an error of kuaidi100, may pass. 601, a used-up key, is fixed by paying: then all shipments are to be
    subscribed again. So neither is a refusal."""
    return _error(code, detail, _SUBSCRIBE_REFUSALS)


def query_error(code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """Map the code of a reply without a history to an exception.

    501 and 502, errors of kuaidi100, and 504, too many queries, pass; 601 is as in `subscribe_error`."""
    return _error(code, detail, _QUERY_REFUSALS)


def _error(code: str, detail: str, refusals: frozenset[str]) -> ExternalRefusal | ExternalOutcomeUnknown:
    if code in refusals:
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"kuaidi100 answers {code[:40]}: {detail[:200]}")
