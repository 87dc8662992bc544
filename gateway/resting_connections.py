"""Refused connections, which are not read before their Retry-After.

TCP holds back what an impatient client sends meanwhile, so refused clients cannot take the time of those who are
served. How long they rest grows with their number: together they come back no faster than they can be refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from typing import Protocol

_logger = logging.getLogger(__name__)
_TICKS_PER_S = 20
_RETURNS_PER_S = 2_000
_RESUMED_PER_ITERATION = 100
_MAX_REST_S = 30


class RestingConnection(Protocol):
    """A connection that can be resumed."""

    @property
    def is_resting(self) -> bool:
        """False if the connection was closed meanwhile."""

    def resume(self) -> None:
        """Take requests again."""

    def abort(self) -> None:
        """Close at once."""


class RestingConnections:
    """The resting connections of this process, by the moment at which they are read again."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[int, list[RestingConnection]] = defaultdict(list)
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

    async def resume_forever(self) -> None:
        """Resume connections whose rest is over, some at a time, until cancelled."""
        while True:
            now = int(self._loop.time() * _TICKS_PER_S)
            for tick in range(self._next_tick, now + 1):
                for number, connection in enumerate(self._due.pop(tick, ()), 1):
                    self._resume(connection)
                    if number % _RESUMED_PER_ITERATION == 0:
                        await asyncio.sleep(0)
            self._next_tick = now + 1
            await asyncio.sleep(1 / _TICKS_PER_S)
