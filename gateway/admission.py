"""Admission: refuses orders over the limits before anything is decoded or priced.

On aiohttp's endpoints that is before the body is read; on the fast path the body has arrived by then.
"""

from __future__ import annotations

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from config.settings import LimitSettings
from gateway.rate_limits import RateLimits


class Admission:
    """Rate and load limits, decided in well under a microsecond.

    `background_loops` updates `backlog`, `OrderIntake` updates `waiting`.
    """

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self._limits = limits
        self.rate_limits = RateLimits(limits, clock)
        self.check_user = self.rate_limits.users.take
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
