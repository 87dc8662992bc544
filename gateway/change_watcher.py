"""Wake-up of event streams of orders, shipments and conversations: one poll for all streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal
from uuid import UUID

from commerce.conversations.customer_threads import latest_event_seqs
from commerce.jobs.wake_ups import WakeUpListener
from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from commerce.kernel.postgres import Database, safe_error_text
from commerce.orders.service import Orders
from commerce.shipping.service import Shipping
from config.settings import LimitSettings
from gateway import metrics
from gateway.problems import TooManyRequests

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_GATEWAY = "gateway"
Topic = Literal["order", "shipments", "conversation"]
SequencePoller = Callable[[Sequence[UUID]], Awaitable[dict[UUID, int]]]
"""Returns for ids of orders or conversations the number of the last event of each."""


class ChangeWatcher:
    """The orders that open event streams of this process watch, by topic.

    `pollers` has the poller of each topic, for changes of which no wake-up came. The number of open streams is limited:
    of all, of a user, of an address.
    """

    def __init__(
        self,
        pollers: Mapping[Topic, SequencePoller],
        changes: WakeUpListener[UUID],
        clock: Clock,
        limits: LimitSettings,
    ) -> None:
        self._pollers = pollers
        self.changes = changes
        self._clock = clock
        self._limits = limits
        self._watched: dict[Topic, dict[UUID, set[asyncio.Event]]] = {topic: defaultdict(set) for topic in pollers}
        self._last_seqs: dict[tuple[Topic, UUID], int] = {}
        self._streams: Counter[str] = Counter()
        """open streams of the gateway, of each user and of each address"""

    @contextmanager
    def subscribe(
        self, topic: Topic, order_id: UUID, *, user_id: str, address: str | None = None
    ) -> Iterator[asyncio.Event]:
        """Yield an event that is set after each change.

        Raises `TooManyRequests` if the user or the address has too many streams, `Overloaded` if the gateway has.
        """
        limits = self._limits
        holders = {
            _GATEWAY: limits.concurrent_event_streams,
            f"user {user_id}": limits.concurrent_event_streams_per_user,
        }
        if address is not None:
            holders[f"address {address}"] = limits.concurrent_event_streams_per_address
        for holder, max_streams in holders.items():
            if self._streams[holder] >= max_streams:
                error = Overloaded if holder == _GATEWAY else TooManyRequests
                raise error(f"{max_streams} event streams of this {holder.split()[0]} are open; read the order instead")
        changed, watched = asyncio.Event(), self._watched[topic]
        self._streams.update(holders.keys())
        metrics.EVENT_STREAMS.set(self._streams[_GATEWAY])
        watched[order_id].add(changed)
        try:
            with self.changes.watch(order_id, changed):
                yield changed
        finally:
            self._streams -= Counter(holders.keys())  # drops those that have none left
            metrics.EVENT_STREAMS.set(self._streams[_GATEWAY])
            watched[order_id].discard(changed)
            if not watched[order_id]:
                del watched[order_id]
                self._last_seqs.pop((topic, order_id), None)

    def close(self) -> None:
        """Wake all streams, so that they can end with the process."""
        for watched in self._watched.values():
            for events in watched.values():
                for changed in events:
                    changed.set()

    async def poll_forever(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._clock.sleep(_POLL_INTERVAL_S)
            for topic, watched in self._watched.items():
                if watched:
                    await self._poll(topic, watched)

    async def _poll(self, topic: Topic, watched: dict[UUID, set[asyncio.Event]]) -> None:
        try:
            progress = await self._pollers[topic](list(watched))
        except Exception as error:  # noqa: BLE001  # the next poll may succeed
            _logger.warning("cannot poll watched orders", extra={"topic": topic, "reason": safe_error_text(error)})
            return
        for order_id, seq in progress.items():
            if self._last_seqs.get((topic, order_id)) != seq and order_id in watched:
                self._last_seqs[topic, order_id] = seq
                for changed in watched[order_id]:
                    changed.set()


def build_watcher(
    orders: Orders,
    shipping: Shipping,
    db: Database,
    changes: WakeUpListener[UUID],
    clock: Clock,
    limits: LimitSettings,
) -> ChangeWatcher:
    """Build the watcher of all topics."""
    pollers: dict[Topic, SequencePoller] = {
        "order": orders.latest_event_seqs,
        "shipments": shipping.latest_event_seqs,
        "conversation": partial(latest_event_seqs, db),
    }
    return ChangeWatcher(pollers, changes, clock, limits)
