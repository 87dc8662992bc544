"""Tells those who watch an order when it has moved on: one look at the database for all of them, twice a second."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.database import told
from commerce.kernel.errors import Overloaded
from commerce.orders.service import Orders
from gateway import metrics

_logger = logging.getLogger(__name__)
_EVERY_S = 0.5


class Watch:
    """The orders of this process's open event streams."""

    def __init__(self, orders: Orders, clock: Clock, most: int) -> None:
        self._orders = orders
        self._clock = clock
        self._most = most
        self._watched: dict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._seen: dict[UUID, int] = {}
        self._streams = 0

    @contextmanager
    def watching(self, order_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever the order may have moved on. Raises `Overloaded` with too many streams."""
        if self._streams >= self._most:
            raise Overloaded("too many event streams are open at this gateway; ask for the order instead")
        moved = asyncio.Event()
        self._streams += 1
        metrics.EVENT_STREAMS.set(self._streams)
        self._watched[order_id].add(moved)
        try:
            yield moved
        finally:
            self._streams -= 1
            metrics.EVENT_STREAMS.set(self._streams)
            self._watched[order_id].discard(moved)
            if not self._watched[order_id]:
                del self._watched[order_id]
                self._seen.pop(order_id, None)

    def end(self) -> None:
        """Wake everybody, so that streams can end with the process."""
        for waiting in self._watched.values():
            for moved in waiting:
                moved.set()

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            await self._clock.sleep(_EVERY_S)
            if not self._watched:
                continue
            try:
                progress = await self._orders.progress(list(self._watched))
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
                _logger.warning("watched orders cannot be looked at", extra={"why": told(error)})
                continue
            for order_id, seq in progress.items():
                if self._seen.get(order_id) != seq and order_id in self._watched:
                    self._seen[order_id] = seq
                    for moved in self._watched[order_id]:
                        moved.set()
