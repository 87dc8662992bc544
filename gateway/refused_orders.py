"""Counts of refused new orders, by which the automatic waiting rooms open and close.

Only sales that have such a room are counted: `sales` is empty otherwise, and costs a refusal nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet

_SALE = re.compile(rb'"sale_id"\s*:\s*"([a-z0-9][a-z0-9-]{0,63})"')
_SEARCHED_BYTES = 4_096


class RefusedOrders:
    """The refused orders of this process since they were last taken, by sale."""

    def __init__(self) -> None:
        self.sales: AbstractSet[str] = frozenset()
        """the sales that are counted"""
        self._counts: Counter[str] = Counter()

    def count(self, sale_id: str) -> None:
        """Count an order of a sale."""
        if sale_id in self.sales:
            self._counts[sale_id] += 1

    def count_body(self, body: bytes) -> None:
        """Count an order that is not decoded, by the sale that its body names within the first 4 KiB."""
        match = _SALE.search(body, 0, _SEARCHED_BYTES)
        if match is not None:
            self.count(match[1].decode())

    def take(self, max_sales: int) -> dict[str, int]:
        """Return the counts, those of the most refused sales if there are too many, and reset all."""
        counts, self._counts = self._counts, Counter()
        return dict(counts.most_common(max_sales))
