"""kuaidi100's words for where a parcel is, and for why it says no, in ours.

The list: https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc (section on `state`), also at
https://apifox.com/apidoc/project-514987/api-8562559. Its codes say nothing of a parcel that is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.model import ShipmentStatus as S


class Word(NamedTuple):
    """How kuaidi100 calls it, and where the parcel is then; None: where it was before."""

    name: str
    state: S | None


STATES = {
    # Nobody has the parcel yet.
    "101": Word("已下单", None),
    "102": Word("待揽收", None),
    "1": Word("揽收", S.PICKED_UP),
    "103": Word("已揽收", S.PICKED_UP),
    "0": Word("在途", S.IN_TRANSIT),
    "1001": Word("到达派件城市", S.IN_TRANSIT),
    "1002": Word("干线", S.IN_TRANSIT),
    "1003": Word("转递", S.IN_TRANSIT),  # sent on to another address of the receiver's
    "7": Word("转投", S.IN_TRANSIT),  # given to another carrier
    "8": Word("清关", S.IN_TRANSIT),
    "10": Word("待清关", S.IN_TRANSIT),
    "11": Word("清关中", S.IN_TRANSIT),
    "12": Word("已清关", S.IN_TRANSIT),
    "5": Word("派件", S.OUT_FOR_DELIVERY),
    "501": Word("投柜或驿站", S.OUT_FOR_DELIVERY),  # in a locker or at a station: nobody has signed for it
    "3": Word("签收", S.DELIVERED),
    "301": Word("本人签收", S.DELIVERED),
    "302": Word("派件异常后签收", S.DELIVERED),
    "303": Word("代签", S.DELIVERED),
    "304": Word("投柜或站签收", S.DELIVERED),
    # Trouble, which moves nothing.
    "2": Word("疑难", None),
    "201": Word("超时未签收", None),
    "202": Word("超时未更新", None),
    "203": Word("拒收", None),  # the receiver wants to refuse it, the sender is to say what now
    "204": Word("派件异常", None),
    "205": Word("柜或驿站超时未取", None),
    "206": Word("无法联系", None),
    "207": Word("超区", None),
    "208": Word("滞留", None),
    "209": Word("破损", None),
    "210": Word("销单", None),
    "13": Word("清关异常", None),
    "401": Word("已销单", None),
    "6": Word("退回", None),  # on its way back, and not there yet
    # The list has read both "the receiver refuses it" and "… and the sender has signed for it": the less is believed.
    "14": Word("拒签", None),
    # Returned, and the sender has signed for it: so says the list's first edition, with seven codes, of this one.
    "4": Word("退签", S.RETURNED_TO_SENDER),
}
_CODES = {word.name: code for code, word in STATES.items()}


class Meaning(NamedTuple):
    """What an entry of a parcel's history says; `unknown` where the code is not in the list."""

    code: str
    state: S | None
    unknown: bool


def meaning(code: str, name: str) -> Meaning:
    """Of an entry's statusCode, or of its status where that has no code: then it has the name alone."""
    code = code or _CODES.get(name, name)
    word = STATES.get(code)
    return Meaning(code or "unsaid", word.state if word else None, word is None)


# Why it says no: https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c (asking for pushes; a plain number is its
# returnCode), https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc (queries).

FOLLOWED = frozenset({"200", "501"})
"""It will push. 501: it had been asked already and still does."""
_FOLLOW_REFUSALS = frozenset(
    {
        "600",  # the key is not known
        "700",  # the carrier's code, the number or the address for pushes cannot be used
        "701",  # the carrier does not want to be asked
        "702",  # it does not find out whose number this is
    }
)
NOT_HEARD_OF = frozenset({"500", "201"})
"""No result for the number yet. 201 comes as the `status` of a history instead of a returnCode."""
_QUERY_REFUSALS = frozenset(
    {
        "400",  # the carrier's code or the number cannot be used, or the account may not ask
        "408",  # the carrier knows another telephone number of the receiver
        "503",  # the signature is wrong: customer or key
    }
)


def follow_failure(code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """What a returnCode outside of `FOLLOWED` means.

    500, an error on its side, may pass. 601, a key that is used up, is mended by paying: then the same is meant to be
    asked again, for every parcel.
    """
    return _failure(code, detail, _FOLLOW_REFUSALS)


def query_failure(code: str, detail: str) -> ExternalRefusal | ExternalOutcomeUnknown:
    """What the code of an answer without a history means.

    501 and 502, errors on its side, and 504, asked too often, pass; 601 is as above.
    """
    return _failure(code, detail, _QUERY_REFUSALS)


def _failure(code: str, detail: str, refusals: frozenset[str]) -> ExternalRefusal | ExternalOutcomeUnknown:
    if code in refusals:
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"kuaidi100 answers {code[:40]}: {detail[:200]}")
