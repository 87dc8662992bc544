"""Admission: refuses orders over the limits before anything is decoded or priced.

On aiohttp's endpoints that is before the body is read; on the fast path the body has arrived by then.
"""

from __future__ import annotations

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from config.settings import LimitSettings
from gateway.problems import TooManyRequests

_MAX_USERS = 100_000


class Admission:
    """Rate and load limits, decided in well under a microsecond.

    `background_loops` updates `backlog`, `OrderIntake` updates `waiting`.
    """

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._refill_per_s = limits.orders_per_user_per_s
        self._burst = float(limits.orders_per_user_burst)
        self._users: dict[str, tuple[float, float]] = {}
        self.backlog = 0
        """orders accepted and not yet in Postgres, over all sales"""
        self.waiting = 0
        """orders of this process that wait to be sent to Redis"""

    def check_load(self) -> None:
        """Raise `Overloaded` if too many orders wait for Redis or for the writer."""
        if self.waiting >= self._limits.waiting_orders:
            raise Overloaded("too many orders are waiting at this gateway; repeat with the same key in a moment")
        if self.backlog >= self._limits.backlog_orders:
            raise Overloaded("too many accepted orders wait to be stored; repeat with the same key in a moment")

    def check_user(self, user_id: str) -> None:
        """Raise `TooManyRequests` if the user exceeds the limit: a token bucket per user and process."""
        now = self._clock.monotonic()
        tokens, refilled_at = self._users.get(user_id, (self._burst, now))
        tokens = min(self._burst, tokens + (now - refilled_at) * self._refill_per_s)
        if tokens < 1:
            raise TooManyRequests(f"more than {self._refill_per_s:g} orders per second; wait a moment")
        if len(self._users) >= _MAX_USERS and user_id not in self._users:
            self._users.pop(next(iter(self._users)))
        self._users[user_id] = (tokens - 1, now)
