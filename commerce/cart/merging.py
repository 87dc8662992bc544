"""The rule by which a guest's cart is merged into a customer's, without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from commerce.cart.model import CartLimits, CartWarning, StoredLine

FindLimit = Callable[[str, str], int]
"""returns the limit per user of a SKU in a sale, 0 for none"""


class Merge(NamedTuple):
    """Changed lines of the customer, keys of lines that leave the guest's cart, and warnings."""

    changed: list[StoredLine]
    moved: list[tuple[str, str]]
    warnings: list[CartWarning]


def merge_lines(
    lines: Sequence[StoredLine], guest_lines: Sequence[StoredLine], limits: CartLimits, find_limit: FindLimit
) -> Merge:
    """Merge a guest's lines into those of a customer.

    A line of both gets the larger quantity, never the sum: who adds the same things twice wants them once. It is capped
    by the limits, but never below what the customer has. Of the accepted prices the lower one counts, so a higher price
    is shown. Lines for which there is no room stay with the guest.
    """
    own = {line.key: line for line in lines}
    room = limits.lines - len(lines)
    changed: list[StoredLine] = []
    moved: list[tuple[str, str]] = []
    warnings: list[CartWarning] = []
    for guest_line in guest_lines:
        own_line = own.get(guest_line.key)
        if own_line is None:
            if room <= 0:
                warnings.append(CartWarning("not_merged", *guest_line.key, wanted=guest_line.quantity))
                continue
            room -= 1
        limit = find_limit(*guest_line.key) or limits.quantity
        quantity = max(own_line.quantity if own_line else 0, min(guest_line.quantity, limit, limits.quantity))
        if quantity < guest_line.quantity:
            warnings.append(
                CartWarning("quantity_cut", *guest_line.key, limit=limit, quantity=quantity, wanted=guest_line.quantity)
            )
        merged = guest_line._replace(quantity=quantity)
        if own_line is not None:
            merged = own_line._replace(
                quantity=quantity,
                selected=own_line.selected or guest_line.selected,
                saved=own_line.saved and guest_line.saved,
                accepted_price_minor=min(own_line.accepted_price_minor, guest_line.accepted_price_minor),
            )
        if merged != own_line:
            changed.append(merged)
        moved.append(guest_line.key)
    return Merge(changed, moved, warnings)
