"""Counts of the people who ordered lately, in blocks: an order is not counted again each half second."""

from __future__ import annotations

from collections import deque

from commerce.kernel.postgres import Connection
from commerce.waiting_rooms import store

_MIN_BLOCK_MS, _MAX_BLOCKS = 10_000, 30
_OPEN_MS = 30_000
_FUTURE_MS = 60_000  # ids of processes whose clocks are ahead


class OrderCounts:
    """Counts those who ordered from a sale in a window that ends now.

    Blocks that are old enough to have all their orders stored are counted once. Orders that are stored even later are
    missed, so too many people seem to be without an order, and fewer are let in, never more.
    """

    def __init__(self, sale_id: str) -> None:
        self._sale_id = sale_id
        self._blocks: deque[tuple[int, int]] = deque()
        self._counted_to_ms = 0

    async def count(self, connection: Connection, begin_ms: int, now_ms: int) -> int:
        """Count the people who ordered since `begin_ms`, about.

        Orders of part of a block are left out; who orders in two blocks counts twice. The first call counts the whole
        window, but no query more than a part of it.
        """
        while self._blocks and self._blocks[0][0] < begin_ms:
            self._blocks.popleft()
        self._counted_to_ms = max(self._counted_to_ms, begin_ms)
        block_ms = max(_MIN_BLOCK_MS, (now_ms - begin_ms) // _MAX_BLOCKS)
        while now_ms - _OPEN_MS - self._counted_to_ms > block_ms:
            end_ms = self._counted_to_ms + block_ms
            count = await store.count_buyers(connection, self._sale_id, self._counted_to_ms, end_ms)
            self._blocks.append((self._counted_to_ms, count))
            self._counted_to_ms = end_ms
        recent = await store.count_buyers(connection, self._sale_id, self._counted_to_ms, now_ms + _FUTURE_MS)
        return recent + sum(count for _, count in self._blocks)
