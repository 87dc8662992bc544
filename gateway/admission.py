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
        self._recent_users: dict[str, tuple[float, float]] = {}
        self._earlier_users: dict[str, tuple[float, float]] = {}
        self.backlog = 0
        """orders accepted and not yet in Postgres, over all sales"""
        self.backlog_bytes = 0
        """memory of these orders in Redis"""
        self.waiting = 0
        """orders of this process that wait to be sent to Redis"""
        self.waiting_bytes = 0
        """bytes of these orders"""

    def check_load(self) -> None:
        """Raise `Overloaded` if too many orders wait for Redis or for the writer."""
        limits = self._limits
        if self.waiting >= limits.waiting_orders or self.waiting_bytes >= limits.waiting_bytes:
            raise Overloaded("too many orders are waiting at this gateway; repeat with the same key in a moment")
        if self.backlog >= limits.backlog_orders or self.backlog_bytes >= limits.backlog_bytes:
            raise Overloaded("too many accepted orders wait to be stored; repeat with the same key in a moment")

    def check_user(self, user_id: str) -> None:
        """Raise `TooManyRequests` if the user exceeds the limit: a token bucket per user and process."""
        now = self._clock.monotonic()
        tokens, refilled_at = self._recent_users.get(user_id) or self._find_bucket(user_id, now)
        tokens = min(self._burst, tokens + (now - refilled_at) * self._refill_per_s)
        is_refused = tokens < 1
        # Also if refused: who goes on asking is active, and an active user's bucket is not forgotten.
        self._recent_users[user_id] = (tokens if is_refused else tokens - 1, now)
        if is_refused:
            raise TooManyRequests(f"more than {self._refill_per_s:g} orders per second; wait a moment")

    def _find_bucket(self, user_id: str, now: float) -> tuple[float, float]:
        """Return the bucket of a user who is not among the recent ones.

        When there are many recent ones they become the earlier ones, and the earlier ones are forgotten: all of them
        were idle while as many others ordered.
        """
        if len(self._recent_users) >= _MAX_USERS // 2:
            self._earlier_users, self._recent_users = self._recent_users, {}
        return self._earlier_users.pop(user_id, (self._burst, now))
