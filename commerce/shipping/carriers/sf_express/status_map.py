"""SF Express's words for where a parcel is, and for why it says no, in ours. An unknown one is not guessed.

Routes: https://open.sf-express.com/developSupport/734349?activeIndex=589678. Errors:
https://open.sf-express.com/developSupport/976720?activeIndex=146623 and the lists at the end of each service, such as
https://open.sf-express.com/Api/ApiDetails?level3=393 (create an order).
"""

from __future__ import annotations

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.model import ShipmentStatus

_S = ShipmentStatus

PICKED_UP = (
    *("50", "54", "950", "700", "701"),  # collected; photographed when it was
    *("51", "850", "851"),  # one of several, or a lot
    *("41", "43", "46", "188", "214"),  # from the collecting courier to the next, or into the depot
    *("129", "655", "656"),  # taken out of a locker, at a partner's point and from there
)
IN_TRANSIT = (
    *("30", "31", "36", "302", "304", "3036", "10", "11", "34", "47", "407"),  # sorted, sealed, by road
    *("105", "106", "88", "89", "405", "406", "570", "571"),  # by air, ship, rail
    *("136", "137", "147", "186", "187", "190", "86", "87", "921", "930", "931"),  # loaded, unloaded
    *("123", "130"),  # to an SF shop, and there
)
OUT_FOR_DELIVERY = (
    *("44", "204", "122", "212", "630", "677", "880", "933"),
    *("125", "642", "678"),  # in a locker, on the shelf of a shop or of a pickup point: it waits for the customer
)
DELIVERED = ("80", "8000", "128", "935")
"""Signed for, where its signature can be seen, taken out of the locker, signed for with a partner of SF's."""
RETURNED = ("631",)
"""Goes back under a new number, so there will be no more news of this one."""
STAYS = (
    *("33", "70", "72", "126", "934"),  # could not be delivered, why, taken back out of the locker
    *("66", "77", "833"),  # held back
    *("127", "131", "138", "646", "647"),  # before it is collected
    *("75", "84", "135", "151", "152"),  # checked, weighed, written down, somebody was sent for it
    "99",  # to another address, as the customer wished
)
ROUTES: dict[str, ShipmentStatus | None] = {
    **dict.fromkeys(PICKED_UP, _S.PICKED_UP),
    **dict.fromkeys(IN_TRANSIT, _S.IN_TRANSIT),
    **dict.fromkeys(OUT_FOR_DELIVERY, _S.OUT_FOR_DELIVERY),
    **dict.fromkeys(DELIVERED, _S.DELIVERED),
    **dict.fromkeys(RETURNED, _S.RETURNED_TO_SENDER),
    **dict.fromkeys(STAYS, None),
}
"""648 is not here: it says of a parcel that it went back or on to somebody else, and only its text says which. Neither
are 658 and 679, after which it may be at the door or on a shelf, nor what belongs to customs."""

REASONS: dict[tuple[str, str], ShipmentStatus] = {
    ("8000", "2"): _S.LOST,  # destroyed
    ("8000", "6"): _S.LOST,
    # Back to us under the same number: the sender signs for it, with the code that a customer's signature has.
    ("99", "2"): _S.RETURNED_TO_SENDER,
}
"""Routes that mean something else where a reason is given."""
_SAID_BY_REASON = frozenset(code for code, _ in REASONS)


def route(code: str, reason: str) -> tuple[ShipmentStatus | None, bool]:
    """Where a parcel is after a route (None: where it was), and whether the route is one that we do not know."""
    if (code, reason) in REASONS:
        return REASONS[code, reason], False
    if code not in ROUTES or (reason and code in _SAID_BY_REASON):
        return None, True
    return ROUTES[code], False


REPEATED = "8016"
"""This order was placed before; what became of it, a query says."""
ABSENT = frozenset({"8018", "6150", "8024"})
"""There is no such order."""
CANCELLED = frozenset({"8037", "8253"})
UPDATED = "2"
"""An order was changed as was wished (`resStatus`)."""
MAY_COME, BY_HAND, WILL_NOT = "2", "1", "3"
"""How SF judged whether it serves the addresses (`filterResult`); whatever else it says is not settled, as BY_HAND is
not."""

# What is wrong with this parcel, its addresses or the agreement it should go under: it was looked at and not taken, and
# the same again will not be either. Not here: 4001, 4002 and S0001 to S0003 (trouble inside of SF, or on the way), 8096
# (closed for today), and whatever was not foreseen.
NOT_BOOKED = frozenset(
    {
        REPEATED,
        *("1010", "1011", "1012", "1014", "1015", "1016"),  # an address without line, name or phone
        *("1020", "1023", "1028", "1038", "8194"),  # what is in it is not said, or not well enough for a border
        *("6200", "6201", "6202", "6203", "6204", "6205", "6206", "6207"),  # the same, abroad
        *("8039", "8040", "8196", "20063"),  # the sender's or the receiver's address or phone is wrong or too vague
        *("6126", "8114", "8119", "8042", "8043"),  # the monthly card: no number, not for sending, void, locked
        *("8057", "8179", "8256", "20036"),  # the product: unknown, not agreed, not paid in this way, does not fit
        *("6127", "6128", "6138", "6139"),  # a service that SF does not know, or an amount that it cannot collect
        *("6130", "20035"),  # its size; what is in it may not be sent
        "8177",  # no room on busy days: waiting for some breaks the promise, so another carrier is to be asked
    }
)


def failure(code: str, detail: str, noes: frozenset[str]) -> ExternalRefusal | ExternalOutcomeUnknown:
    """What an error of a service means that may say no with these codes."""
    if code in noes:
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"SF Express answers {code[:40]}: {detail[:200]}")
