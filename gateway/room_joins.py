"""Joins of waiting rooms in batches: all that wait for a room share its next Redis call."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import lua
from commerce.kernel.errors import NotReady, Overloaded, ProblemError
from commerce.kernel.outages import log_failure
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from commerce.waiting_rooms.model import Room
from config.settings import Settings
from lua import JoinResult, SaleKeys

_logger = logging.getLogger(__name__)


Outcome = JoinResult | ProblemError


class _Join(NamedTuple):
    room: Room
    ticket_hash: bytes
    shown: int
    resolve: Callable[[Outcome], None]


class RoomJoins:
    """Sends joins to Redis, one call per room at a time. Repeating a join is safe."""

    def __init__(self, link: RedisMultiplexer, settings: Settings) -> None:
        self._link = link
        self._settings = settings
        self._limits = settings.limits
        self._waiting: dict[str, deque[_Join]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._count = 0

    def submit(self, room: Room, ticket_hash: bytes, shown: int, resolve: Callable[[Outcome], None]) -> None:
        """Give a customer his place, and call `resolve` once with it or with a problem.

        `shown` is the number of his verified ticket, 0 for none. Raises `Overloaded` if too many joins wait.
        """
        if self._count >= self._limits.waiting_joins:
            raise Overloaded("too many people are joining at this moment; repeat the request")
        queue = self._waiting.get(room.sale_id)
        if queue is None:
            queue = self._waiting[room.sale_id] = deque()
            call = asyncio.create_task(self._send(room.sale_id, queue))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        queue.append(_Join(room, ticket_hash, shown, resolve))
        self._count += 1

    async def leave(self, room: Room, ticket_hash: bytes) -> bool:
        """Take a customer out of the room. Returns False if he was not in it."""
        try:
            return await lua.leave_room(self._link, SaleKeys(room.sale_id), ticket_hash)
        except REDIS_UNAVAILABLE:
            raise _unreachable() from None

    async def _send(self, sale_id: str, queue: deque[_Join]) -> None:
        """Send all that wait, batch by batch, until none is left."""
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), self._limits.batch_orders))]
            outcome: list[JoinResult] | ProblemError
            try:
                outcome = await self._join_batch(batch)
            except ProblemError as error:
                outcome = error
            except REDIS_UNAVAILABLE:
                outcome = _unreachable()
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot join people to a room", error, sale_id=sale_id, count=len(batch))
                outcome = NotReady("cannot join at the moment; repeat the request")
            self._count -= len(batch)
            for number, join in enumerate(batch):
                try:
                    join.resolve(outcome if isinstance(outcome, ProblemError) else outcome[number])
                except Exception:
                    _logger.exception("cannot answer a join")
        del self._waiting[sale_id]

    async def _join_batch(self, batch: list[_Join]) -> list[JoinResult]:
        room = batch[-1].room  # the latest: the queue may not become empty for long
        keys = SaleKeys(room.sale_id)
        joins = [(join.ticket_hash, join.shown) for join in batch]
        if self._settings.durability != "replicated":
            return await lua.join_room(self._link, keys, joins, room.max_waiting, room.expired)
        connection = await self._link.pin()
        results = await lua.join_room(connection, keys, joins, room.max_waiting, room.expired)
        timeout_ms = self._limits.redis_call_timeout_ms // 2
        if not await lua.wait_for_replicas(connection, keys, self._settings.replicas, timeout_ms):
            raise NotReady("the replicas have not confirmed yet; repeat the request")
        return results


def _unreachable() -> NotReady:
    return NotReady("Redis cannot be reached; repeat the request")
