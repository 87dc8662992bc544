"""Three small states beside the status of an order: of its money, its delivery and its returns.

They follow from quantities and amounts alone. docs/architecture.md has the table of their combinations.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PaymentState = Literal["unpaid", "partly_paid", "authorised", "paid", "partly_refunded", "refunded", "nothing_due"]
DeliveryState = Literal["unshipped", "partly_shipped", "shipped", "partly_delivered", "delivered", "none"]
ReturnState = Literal["none", "requested", "in_progress", "partly_returned", "returned"]


class OrderMoney(NamedTuple):
    """Amounts of an order in minor units, of the payments that count for it.

    `payable` is the total without cash that will never be collected, `authorised` cash that is due on delivery, and
    `refunded` money that has moved. `is_closed`: nothing more is to be paid, since the order is cancelled.
    """

    payable: int
    authorised: int = 0
    captured: int = 0
    refunded: int = 0
    is_closed: bool = False


class OrderQuantities(NamedTuple):
    """Units of an order over all lines and addresses."""

    ordered: int
    cancelled: int = 0
    shipped: int = 0
    delivered: int = 0
    returned: int = 0


def find_payment_state(money: OrderMoney) -> PaymentState:
    """Return what an order's money is: paid and refunded count only once it has moved."""
    if money.refunded:
        return "refunded" if money.refunded >= money.captured else "partly_refunded"
    if money.captured:
        return "paid" if money.is_closed or money.captured >= money.payable else "partly_paid"
    if money.payable == 0 or money.is_closed:
        return "nothing_due"
    return "authorised" if money.authorised >= money.payable else "unpaid"


def find_delivery_state(units: OrderQuantities, *, is_cancelled: bool) -> DeliveryState:
    """Return how far an order is delivered. Units that are cancelled are not expected any more."""
    expected = units.ordered - units.cancelled
    if is_cancelled or expected == 0:
        return "none"
    if units.delivered:
        return "delivered" if units.delivered >= expected else "partly_delivered"
    if units.shipped:
        return "shipped" if units.shipped >= expected else "partly_shipped"
    return "unshipped"


def find_return_state(units: OrderQuantities, *, requested: bool, in_progress: bool) -> ReturnState:
    """Return how far an order is returned.

    `requested`: a case is open about units to be returned, and nobody has decided it; `in_progress`: one that was
    approved. An open case comes before what was returned earlier.
    """
    if in_progress:
        return "in_progress"
    if requested:
        return "requested"
    if units.returned:
        return "returned" if units.returned >= units.delivered else "partly_returned"
    return "none"
