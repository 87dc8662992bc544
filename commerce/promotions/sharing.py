"""Shares amounts out to SKUs and lines, so that the parts of any division add up to the whole.

Every result is exact to the minor unit and depends only on what an order holds, not on the sequence of its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class SharedLine(Protocol):
    """The part of an order line for one address, as `AcceptedLine` is one."""

    @property
    def line_no(self) -> int: ...
    @property
    def address_no(self) -> int: ...
    @property
    def sku(self) -> str: ...
    @property
    def quantity(self) -> int: ...


def share(amount: int, weights: Sequence[int]) -> list[int]:
    """Share `amount` ≥ 0 in proportion to weights ≥ 0, by the largest remainder; of equal ones the first.

    The shares add up to the amount, and none is more than its weight if the amount is not more than all weights.
    Raises `ValueError` if there is something to share and all weights are 0.
    """
    whole = sum(weights)
    if amount == 0:
        return [0] * len(weights)
    if whole == 0:
        raise ValueError("cannot share an amount: all weights are 0")
    shares = [amount * weight // whole for weight in weights]
    remaining = amount - sum(shares)
    if remaining:
        # Fewer are left over than there are remainders above 0, so a share that is exact already gets none of them.
        by_remainder = sorted(range(len(weights)), key=lambda index: (-(amount * weights[index] % whole), index))
        for index in by_remainder[:remaining]:
            shares[index] += 1
    return shares


def share_to_lines(lines: Sequence[SharedLine], by_sku: Mapping[str, int]) -> list[int]:
    """Share the discounts of SKUs to their lines by quantity.

    Returns the discount of each line, in their sequence. With `Evaluation.by_sku` each is from 0 up to quantity times
    unit price. Lines of a SKU are taken in the order of address, quantity and number, so the same lines in another
    sequence get the same discounts.
    """
    discounts = [by_sku.get(line.sku, 0) for line in lines]
    if len({line.sku for line in lines}) == len(lines):
        return discounts
    indexes_of: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        indexes_of.setdefault(line.sku, []).append(index)
    for sku, indexes in indexes_of.items():
        if len(indexes) > 1:
            indexes.sort(key=lambda index: (lines[index].address_no, lines[index].quantity, lines[index].line_no))
            shares = share(by_sku.get(sku, 0), [lines[index].quantity for index in indexes])
            for index, amount in zip(indexes, shares, strict=True):
                discounts[index] = amount
    return discounts
