"""SF Express's codes as shipment statuses, and its errors as refusals or unknown outcomes.

Unknown codes are not guessed.

Routes: https://open.sf-express.com/developSupport/734349?activeIndex=589678. Errors:
https://open.sf-express.com/developSupport/976720?activeIndex=146623 and the lists at the end of each service, such as
https://open.sf-express.com/Api/ApiDetails?level3=393 (create an order).
"""

from __future__ import annotations

from typing import NamedTuple

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.model import ShipmentStatus

PICKED_UP_CODES = (
    *("50", "54", "950", "700", "701"),  # collected; photographed on collection
    *("51", "850", "851"),  # one of several pieces, or a lot
    *("41", "43", "46", "188", "214"),  # from the collector to the next one, or into the branch
    *("129", "655", "656"),  # taken out of a locker, at a partner's point and from there
)
IN_TRANSIT_CODES = (
    *("30", "31", "36", "302", "304", "3036", "10", "11", "34", "47", "407"),  # sorted, sealed, by road
    *("105", "106", "88", "89", "405", "406", "570", "571"),  # by air, ship, rail
    *("136", "137", "147", "186", "187", "190", "86", "87", "921", "930", "931"),  # loaded, unloaded
    *("123", "130"),  # to an SF shop, and there
)
OUT_FOR_DELIVERY_CODES = (
    *("44", "204", "122", "212", "630", "677", "880", "933"),
    *("125", "642", "678"),  # in a locker, on the shelf of a shop or of a pickup point: it waits for the customer
)
DELIVERED_CODES = ("80", "8000", "128", "935")
"""Signed for; signature available; taken out of the locker; signed for at a partner of SF."""
RETURNED_CODES = ("631",)
"""Returns to the sender under a new number, so this number gets no more events."""
UNCHANGED_CODES = (
    *("33", "70", "72", "126", "934"),  # could not be delivered, the reason, taken back out of the locker
    *("66", "77", "833"),  # held
    *("127", "131", "138", "646", "647"),  # before it is collected
    *("75", "84", "135", "151", "152"),  # checked, weighed, recorded, a collector was sent
    "99",  # to another address, as the customer requested
)
STATUS_BY_CODE: dict[str, ShipmentStatus | None] = {
    **dict.fromkeys(PICKED_UP_CODES, ShipmentStatus.PICKED_UP),
    **dict.fromkeys(IN_TRANSIT_CODES, ShipmentStatus.IN_TRANSIT),
    **dict.fromkeys(OUT_FOR_DELIVERY_CODES, ShipmentStatus.OUT_FOR_DELIVERY),
    **dict.fromkeys(DELIVERED_CODES, ShipmentStatus.DELIVERED),
    **dict.fromkeys(RETURNED_CODES, ShipmentStatus.RETURNED_TO_SENDER),
    **dict.fromkeys(UNCHANGED_CODES, None),
}
"""None: the status stays the same.

648 is missing: the shipment returned or went on to another recipient, and only its text says which. 658 and 679 are
missing: after them it is with the recipient or on a shelf. So are the codes of customs."""

STATUS_BY_REASON: dict[tuple[str, str], ShipmentStatus] = {
    ("8000", "2"): ShipmentStatus.LOST,  # destroyed
    ("8000", "6"): ShipmentStatus.LOST,
    # Returned to us under the same number: the sender signs for it, with the code of a customer's signature.
    ("99", "2"): ShipmentStatus.RETURNED_TO_SENDER,
}
"""Pairs of code and reason that differ from the code alone."""
_CODES_WITH_REASONS = frozenset(code for code, _ in STATUS_BY_REASON)


class RouteStatus(NamedTuple):
    """The shipment's status after a route; None if it stays the same or the code is unknown."""

    status: ShipmentStatus | None
    is_unknown_code: bool


def decode_route(code: str, reason: str) -> RouteStatus:
    """Decode a route's code and its reason ("" without one)."""
    if (code, reason) in STATUS_BY_REASON:
        return RouteStatus(STATUS_BY_REASON[code, reason], is_unknown_code=False)
    if code not in STATUS_BY_CODE or (reason and code in _CODES_WITH_REASONS):
        return RouteStatus(None, is_unknown_code=True)
    return RouteStatus(STATUS_BY_CODE[code], is_unknown_code=False)


DUPLICATE_ORDER = "8016"
"""The order was created before; a query returns its state."""
ABSENT_CODES = frozenset({"8018", "6150", "8024"})
"""There is no such order."""
CANCELLED_CODES = frozenset({"8037", "8253"})
UPDATED = "2"
"""The order was changed as requested (`resStatus`)."""
FILTER_SERVED, FILTER_BY_HAND, FILTER_NOT_SERVED = "2", "1", "3"
"""SF's decision whether it serves the addresses (`filterResult`).

Any other value, like FILTER_BY_HAND, is undecided."""

BOOKING_REFUSALS = frozenset(
    {
        DUPLICATE_ORDER,
        *("1010", "1011", "1012", "1014", "1015", "1016"),  # an address without line, name or phone
        *("1020", "1023", "1028", "1038", "8194"),  # the contents are missing, or too vague for customs
        *("6200", "6201", "6202", "6203", "6204", "6205", "6206", "6207"),  # likewise, abroad
        *("8039", "8040", "8196", "20063"),  # an address or a phone of sender or recipient is wrong or too vague
        *("6126", "8114", "8119", "8042", "8043"),  # the monthly card: no number, not for sending, void, locked
        *("8057", "8179", "8256", "20036"),  # the product: unknown, not in the contract, wrong payment, does not fit
        *("6127", "6128", "6138", "6139"),  # a service that SF does not know, or an amount that it cannot collect
        *("6130", "20035"),  # its size; contents that may not be sent
        "8177",  # no capacity on busy days: waiting breaks the delivery promise, so another carrier is chosen
    }
)
"""Errors of this shipment, its addresses or the contract.

SF read the order and refused it, and would refuse it again. Not here: 4001, 4002 and S0001 to S0003 (errors inside of
SF, or on the network), 8096 (closed for today), and all codes that we do not know."""


def make_error(code: str, detail: str, refusals: frozenset[str]) -> ExternalRefusal | ExternalOutcomeUnknown:
    """Make the exception for a service's error; the codes in `refusals` are refusals."""
    if code in refusals:
        return ExternalRefusal(code, detail[:200])
    return ExternalOutcomeUnknown(f"SF Express answers {code[:40]}: {detail[:200]}")
