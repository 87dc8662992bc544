"""Values of units of an order line: their share of what was paid for it."""

from __future__ import annotations


def unit_share(paid_minor: int, quantity: int, start: int, count: int) -> int:
    """Return the part of `paid_minor` that belongs to `count` units of a line, from unit `start` on.

    Units are counted from 0. The first k units are worth `paid_minor * k // quantity`, so n refunds of a part return
    exactly what one refund of the whole returns. Raises `ValueError` if the line has not these units.
    """
    if start < 0 or count < 0 or start + count > quantity:
        raise ValueError(f"units {start} to {start + count} are not in a line of {quantity}")
    if count == 0:
        return 0
    return paid_minor * (start + count) // quantity - paid_minor * start // quantity
