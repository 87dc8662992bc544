"""Divides an amount over the payments of an order. No payment gets more than what it still holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from commerce.orders.model import Method
from commerce.payments.model import INTERNAL_METHODS
from commerce.refunds.model import Allocation, Destination, Strategy


class OpenPayment(NamedTuple):
    """A payment with `remaining_minor` that can still go back.

    `is_collected` is false for cash on delivery that is still due: it need not be paid then. If it `is_coming`, a
    shipment collects it all the same, or has done so, and it can go back once it is captured.
    """

    payment_id: UUID
    method: Method
    remaining_minor: int
    is_collected: bool = True
    is_coming: bool = False


def allocate(amount_minor: int, payments: Sequence[OpenPayment], strategy: Strategy) -> list[Allocation]:
    """Divide `amount_minor` over payments, which are in the order of their tenders.

    Cash that is still due comes first: nobody pays and is paid back. Cash that is coming is last: its refund has to
    wait. The rest is divided by the strategy; with `ratio` what does not divide goes to providers before store credit.
    Payments that give nothing are left out. Raises `ValueError` if the payments hold less.
    """
    if amount_minor > sum(payment.remaining_minor for payment in payments):
        raise ValueError(f"the payments hold less than {amount_minor} minor units")
    due = [payment for payment in payments if not payment.is_collected and not payment.is_coming]
    coming = [payment for payment in payments if payment.is_coming]
    collected = [payment for payment in payments if payment.is_collected]
    due_minor = min(amount_minor, sum(payment.remaining_minor for payment in due))
    amounts = _fill(due_minor, due)
    rest_minor = min(amount_minor - due_minor, sum(payment.remaining_minor for payment in collected))
    if strategy == "ratio":
        amounts += _share(rest_minor, collected)
    elif strategy == "first":
        amounts += _fill(rest_minor, collected)
    else:
        amounts += _fill(rest_minor, collected[::-1])[::-1]
    amounts += _fill(amount_minor - due_minor - rest_minor, coming)
    return [
        Allocation(
            *(payment.payment_id, payment.method, amount),
            "not_collected" if payment in due else find_destination(payment.method),
        )
        for payment, amount in zip([*due, *collected, *coming], amounts, strict=True)
        if amount
    ]


def find_destination(method: Method) -> Destination:
    """Return the target of captured money. Nobody hands cash over, so it becomes store credit."""
    return "store_credit" if method in INTERNAL_METHODS else "provider"


def _fill(amount_minor: int, payments: Sequence[OpenPayment]) -> list[int]:
    """Take as much as there is of each payment in turn."""
    amounts = []
    for payment in payments:
        amounts.append(min(amount_minor, payment.remaining_minor))
        amount_minor -= amounts[-1]
    return amounts


def _share(amount_minor: int, payments: Sequence[OpenPayment]) -> list[int]:
    """Share in proportion to what is left of each payment, by the largest remainder."""
    whole = sum(payment.remaining_minor for payment in payments)
    if not amount_minor:
        return [0] * len(payments)
    products = [amount_minor * payment.remaining_minor for payment in payments]
    amounts = [product // whole for product in products]
    # One minor unit more never exceeds a payment: something is left over only if the amount is less than the whole.
    by_remainder = sorted(
        (index for index, payment in enumerate(payments) if payment.remaining_minor),
        key=lambda index: (payments[index].method in INTERNAL_METHODS, -(products[index] % whole), index),
    )
    for index in by_remainder[: amount_minor - sum(amounts)]:
        amounts[index] += 1
    return amounts
