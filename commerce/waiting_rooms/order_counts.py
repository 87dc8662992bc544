"""Counts of a sale's latest orders, in blocks: an order is not counted again each half second."""

from __future__ import annotations

from collections import deque

from commerce.kernel.postgres import Connection
from commerce.waiting_rooms import store

_BLOCK_MS, _OPEN_MS = 10_000, 30_000
_FUTURE_MS = 60_000  # ids of processes whose clocks are ahead


class OrderCounts:
    """Counts the stored orders of a sale in a window that ends now.

    Blocks that are old enough to have all their orders stored are counted once. Orders that are stored even later are
    missed, so too many people seem to be without an order, and fewer are let in, never more.
    """

    def __init__(self, sale_id: str) -> None:
        self._sale_id = sale_id
        self._blocks: deque[tuple[int, int]] = deque()
        self._open_since_ms = 0

    async def count(self, connection: Connection, now_ms: int, window_s: int) -> int:
        """Count the orders of the last `window_s` seconds, a block more or less."""
        begin_ms = now_ms - window_s * 1000
        self._open_since_ms = max(self._open_since_ms, begin_ms)
        while self._blocks and self._blocks[0][0] < begin_ms:
            self._blocks.popleft()
        if now_ms - self._open_since_ms > _OPEN_MS + _BLOCK_MS:
            end_ms = now_ms - _OPEN_MS
            count = await store.count_orders(connection, self._sale_id, self._open_since_ms, end_ms)
            self._blocks.append((self._open_since_ms, count))
            self._open_since_ms = end_ms
        recent = await store.count_orders(connection, self._sale_id, self._open_since_ms, now_ms + _FUTURE_MS)
        return recent + sum(count for _, count in self._blocks)
