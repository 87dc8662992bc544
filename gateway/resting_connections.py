"""Refused connections, which are not read before their Retry-After.

TCP holds back what an impatient client sends meanwhile, so refused clients cannot take the time of those who are
served. Who waits for its end is served next. Who has asked again too early rests on while the gateway is overloaded,
so that the connections at work are no more than can be served; when it is not, they come back at once, oldest first.
How long they rest grows with their number: together they come back no faster than they can be refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

_logger = logging.getLogger(__name__)
_TICKS_PER_S = 20
_RETURNS_PER_S = 5_000
_RESUMED_PER_ITERATION = 100
_MAX_REST_S = 30
_IMPATIENT_RETURNS_PER_S, _IMPATIENT_REST_S, _MAX_IMPATIENT_REST_S = 1_000, 4, 15
_RESUMED_EARLY_PER_TICK = 50


class RestingConnection(Protocol):
    """A connection that can be resumed."""

    @property
    def is_resting(self) -> bool:
        """False if the connection was closed or resumed meanwhile."""

    @property
    def is_impatient(self) -> bool:
        """True if the client has sent another order since it was refused."""

    def resume(self) -> None:
        """Take requests again."""

    def abort(self) -> None:
        """Close at once."""


class RestingConnections:
    """The resting connections of this process, by the moment at which they are read again."""

    def __init__(self, is_overloaded: Callable[[], bool]) -> None:
        self._is_overloaded = is_overloaded
        self._loop = asyncio.get_running_loop()
        self._due: dict[int, list[RestingConnection]] = defaultdict(list)
        self._impatient: deque[tuple[float, RestingConnection]] = deque()
        """those that rest a second time, with the end of it"""
        self._next_tick = int(self._loop.time() * _TICKS_PER_S)
        self.count = 0

    def choose_rest_s(self) -> int:
        """Return the whole seconds after which a refused client may ask again, with jitter."""
        base = min(1 + self.count // _RETURNS_PER_S, _MAX_REST_S // 2)
        return base + int(random.random() * (base + 1))  # noqa: S311  # it only spreads the load

    def add(self, connection: RestingConnection, rest_s: float) -> None:
        """Resume a connection when its rest is over."""
        tick = int((self._loop.time() + rest_s) * _TICKS_PER_S) + 1
        self._due[tick].append(connection)
        self.count += 1

    def remove(self) -> None:
        """Count a resting connection that was closed."""
        self.count -= 1

    def _resume(self, connection: RestingConnection) -> None:
        if not connection.is_resting:
            return
        self.count -= 1
        try:
            connection.resume()
        except Exception:
            _logger.exception("cannot resume a connection")
            connection.abort()

    def _end_first_rest(self, connection: RestingConnection) -> None:
        """Resume a connection, or let it rest on."""
        if connection.is_resting and connection.is_impatient and self._is_overloaded():
            rest_s = min(_IMPATIENT_REST_S + self.count // _IMPATIENT_RETURNS_PER_S, _MAX_IMPATIENT_REST_S)
            self._impatient.append((self._loop.time() + rest_s, connection))
        else:
            self._resume(connection)

    def _take_impatient(self, now: float) -> Iterator[RestingConnection]:
        """Take impatient connections whose second rest is over, and some more if there is capacity for them."""
        early = 0 if self._is_overloaded() else _RESUMED_EARLY_PER_TICK
        while self._impatient and (self._impatient[0][0] <= now or early > 0):
            ends_at, connection = self._impatient.popleft()
            if ends_at > now and connection.is_resting:
                early -= 1
            yield connection

    async def resume_forever(self) -> None:
        """Resume connections whose rest is over, some at a time, until cancelled."""
        while True:
            now = self._loop.time()
            tick = int(now * _TICKS_PER_S)
            due = [connection for at in range(self._next_tick, tick + 1) for connection in self._due.pop(at, ())]
            self._next_tick = tick + 1
            for end, connections in ((self._end_first_rest, due), (self._resume, self._take_impatient(now))):
                for number, connection in enumerate(connections, 1):
                    end(connection)
                    if number % _RESUMED_PER_ITERATION == 0:
                        await asyncio.sleep(0)
            await asyncio.sleep(1 / _TICKS_PER_S)
