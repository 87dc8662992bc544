"""Tells those who watch an order, or its parcels, when there is news: one look at the database for all of them, twice a
second."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from commerce.kernel.postgres import safe_error_text
from gateway import metrics

_logger = logging.getLogger(__name__)
_EVERY_S = 0.5
Topic = Literal["order", "parcels"]
SequencePoller = Callable[[Sequence[UUID]], Awaitable[dict[UUID, int]]]
"""For orders by their ids the number of the last thing that happened."""


class ChangeWatcher:
    """The orders of this process's open event streams, by what of them is watched."""

    def __init__(self, looks: Mapping[Topic, SequencePoller], clock: Clock, most: int) -> None:
        self._looks = looks
        self._clock = clock
        self._most = most
        self._watched: dict[Topic, dict[UUID, set[asyncio.Event]]] = {topic: defaultdict(set) for topic in looks}
        self._seen: dict[tuple[Topic, UUID], int] = {}
        self._streams = 0

    @contextmanager
    def subscribe(self, topic: Topic, order_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever there may be news. Raises `Overloaded` with too many streams."""
        if self._streams >= self._most:
            raise Overloaded("too many event streams are open at this gateway; ask for the order instead")
        moved, watched = asyncio.Event(), self._watched[topic]
        self._streams += 1
        metrics.EVENT_STREAMS.set(self._streams)
        watched[order_id].add(moved)
        try:
            yield moved
        finally:
            self._streams -= 1
            metrics.EVENT_STREAMS.set(self._streams)
            watched[order_id].discard(moved)
            if not watched[order_id]:
                del watched[order_id]
                self._seen.pop((topic, order_id), None)

    def close(self) -> None:
        """Wake everybody, so that streams can end with the process."""
        for watched in self._watched.values():
            for waiting in watched.values():
                for moved in waiting:
                    moved.set()

    async def poll_forever(self) -> None:
        """Look until cancelled."""
        while True:
            await self._clock.sleep(_EVERY_S)
            for topic, watched in self._watched.items():
                if watched:
                    await self._poll(topic, watched)

    async def _poll(self, topic: Topic, watched: dict[UUID, set[asyncio.Event]]) -> None:
        try:
            progress = await self._looks[topic](list(watched))
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may succeed
            _logger.warning(
                "what is watched cannot be looked at", extra={"topic": topic, "why": safe_error_text(error)}
            )
            return
        for order_id, seq in progress.items():
            if self._seen.get((topic, order_id)) != seq and order_id in watched:
                self._seen[topic, order_id] = seq
                for moved in watched[order_id]:
                    moved.set()
