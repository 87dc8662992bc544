"""Orders taken in one iteration of the event loop: so many at most, the others in the next ones.

A crowd sends more orders at a time than can be taken in a few milliseconds. Between two parts of them the loop handles
everything else: replies of Redis and Postgres, payments, cancellations, reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from math import inf
from typing import Protocol

from gateway.admission import Admission

_logger = logging.getLogger(__name__)
_ORDERS_PER_TURN = 256  # one batch: with a quarter of it an order costs a tenth more


class DeferredConnection(Protocol):
    """A connection with an order in its buffer."""

    def take_deferred(self) -> None:
        """Take the order, if it is still there."""

    def abort(self) -> None:
        """Close at once."""


class OrderTurns:
    """Bounds the orders of an iteration: `left` is how many more the present one may take.

    Whoever takes an order calls `count`, whoever finds none left calls `defer`.
    """

    def __init__(self, admission: Admission) -> None:
        self._loop = asyncio.get_running_loop()
        self._admission = admission
        self._deferred: deque[tuple[float, DeferredConnection]] = deque()
        self.left = _ORDERS_PER_TURN

    def count(self) -> None:
        """Count an order that is taken now."""
        if self.left == _ORDERS_PER_TURN:
            self._loop.call_soon(self._begin)
        self.left -= 1

    def defer(self, connection: DeferredConnection, now: float) -> None:
        """Let a connection take its order in a later iteration; `now` is perf_counter's."""
        self._deferred.append((now, connection))
        self._admission.deferred += 1
        if len(self._deferred) == 1:
            self._admission.deferred_since = now

    def _begin(self) -> None:
        """Begin another turn with the orders that were deferred first."""
        deferred, admission = self._deferred, self._admission
        self.left = _ORDERS_PER_TURN
        for _ in range(min(len(deferred), _ORDERS_PER_TURN)):
            _, connection = deferred.popleft()
            admission.deferred -= 1
            try:
                connection.take_deferred()
            except Exception:
                _logger.exception("cannot take an order")
                connection.abort()
        admission.deferred_since = deferred[0][0] if deferred else inf
        if deferred and self.left == _ORDERS_PER_TURN:  # none of them was still there
            self._loop.call_soon(self._begin)
