"""Admission: refuses orders that would wait too long, before they are decoded or priced.

The measure is time, not a number. The wait of the oldest order that was not sent to Redis is known exactly; up to
`limits.order_wait_target_ms` everybody is admitted. Between once and twice the target, the user decides: each user has
a rank, the same at all gateways, which changes every ten seconds. So a user who asks again at once is refused again,
and a user who waits gets another chance. Repeats of accepted orders, and orders of customers whose turn it is in a
waiting room, are admitted up to four times the target. A queue that one call carries is no overload, however long
Redis takes.

The idea of ranks is DAGOR's (Zhou et al., "Overload Control for Scaling WeChat Microservices", SoCC 2018), the rule of
once and twice the target is CoDel's as in Facebook's Wangle ("Fail at Scale", ACM Queue 13(8), 2015).
"""

from __future__ import annotations

import zlib
from math import inf
from time import perf_counter

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from config.settings import LimitSettings
from gateway.rate_limits import RateLimits

_RANK_LIFETIME_MS = 10_000
_MAX_PREFERRED_PRESSURE = 3.0
_LONG_WAIT = "too many orders are waiting at this gateway; repeat with the same key after Retry-After"
_LONG_BACKLOG = "too many accepted orders wait to be stored; repeat with the same key after Retry-After"


class Admission:
    """Limits of rate and load, decided in well under a microsecond.

    `background_loops` reports the backlog, `OrderIntake` updates `waiting`, `OrderTurns` what is deferred.
    """

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._target_s = limits.order_wait_target_ms / 1000
        self.rate_limits = RateLimits(limits, clock)
        self.backlog = 0
        """orders accepted and not yet in Postgres, over all sales"""
        self.waiting = 0
        """orders of this process that wait to be sent to Redis"""
        self.waiting_bytes = 0
        """bytes of these orders"""
        self.waiting_since = inf
        """arrival of the oldest of these orders, by the monotonic clock"""
        self.deferred = 0
        """orders that this process has received and left to a later iteration of its event loop"""
        self.deferred_since = inf
        """arrival of the oldest of these orders"""
        self._is_backlogged = False
        self._period, self._salt = -1, 0  # of the ranks

    @property
    def unsent(self) -> int:
        """Orders that have arrived and were not sent to Redis."""
        return self.waiting + self.deferred

    def report_backlog(self, orders: int, size: int, age_s: float) -> None:
        """Take the number, bytes and age of the orders that wait for the writer."""
        limits = self._limits
        self.backlog = orders
        self._is_backlogged = (
            orders >= limits.backlog_orders or size >= limits.backlog_bytes or age_s >= limits.backlog_age_s
        )

    def pressure(self, now: float) -> float:
        """Return how overloaded this process is: below 0 not at all, from 1 on no new order is admitted.

        `now` is that of `perf_counter`, which like the event loop reads the monotonic clock.
        """
        if self._is_backlogged or self.waiting_bytes >= self._limits.waiting_bytes:
            return inf
        if self.waiting + self.deferred < self._limits.batch_orders:
            return -1.0
        since = self.waiting_since
        if self.deferred_since < since:
            since = self.deferred_since
        return (now - since) / self._target_s - 1

    def is_overloaded(self) -> bool:
        """Tell whether some orders are refused now."""
        return self.pressure(perf_counter()) > 0

    def admits(self, pressure: float, user_hash: int) -> bool:
        """Tell whether a user's new order is admitted at a pressure above 0."""
        return pressure < self._rank(user_hash)

    @staticmethod
    def admits_preferred(pressure: float) -> bool:
        """Tell whether orders that come before new ones are admitted at a pressure above 0."""
        return pressure < _MAX_PREFERRED_PRESSURE

    def refusal(self) -> Overloaded:
        """Build the refusal of an order that is not admitted."""
        return Overloaded(_LONG_BACKLOG if self._is_backlogged else _LONG_WAIT)

    def _rank(self, user_hash: int) -> float:
        """Return the rank of a user now, from 0 up to 1."""
        period = self._clock.now_ms() // _RANK_LIFETIME_MS
        if period != self._period:
            self._period, self._salt = period, zlib.crc32(b"%d" % period)
        return ((user_hash ^ self._salt) * 0x9E3779B1 & 0xFFFFFFFF) / 0x1_0000_0000
