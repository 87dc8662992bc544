"""Refused new orders of each sale per second over all gateways, by which automatic rooms open."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock

_MEASURED_MS = 1_000
_MAX_GAP_MS = 3_000
_NO_REPORTER = b""


class RushThresholds(Protocol):
    """The settings by which automatic rooms open and close."""

    @property
    def opens_at_refused_per_s(self) -> int: ...

    @property
    def opens_after_s(self) -> float: ...

    @property
    def closes_below_refused_per_s(self) -> int: ...

    @property
    def closes_after_s(self) -> float: ...


class RefusalRates:
    """Measures, about once a second, what the gateways report of refused orders.

    Nothing is stored: a keeper that starts, or could not read for some seconds, begins to measure again. Then a room
    opens or closes later by a few seconds.
    """

    def __init__(self, redis: Redis, clock: Clock, thresholds: RushThresholds) -> None:
        self._redis = redis
        self._clock = clock
        self._thresholds = thresholds
        self._last_id: bytes | None = None
        self._counts: Counter[str] = Counter()
        self._measured_ms = 0
        """when the last measurement ended"""
        self._began_ms = 0
        """when the first one of those without a gap began"""
        self._high_since_ms: dict[str, int] = {}
        self._busy_ms: dict[str, int] = {}
        """when a sale was last not calm"""

    async def poll(self) -> None:
        """Read the new reports of the gateways, and measure if a second is over."""
        if self._last_id is None:
            self._last_id = await lua.find_last_usage_report(self._redis)
        for report in await lua.share_usage(self._redis, _NO_REPORTER, {}, self._last_id):
            self._last_id = report.id
            if report.used is not None:
                self._counts.update(report.used.get(lua.REFUSED_ORDERS, {}))
        now_ms = self._clock.now_ms()
        elapsed_ms = now_ms - self._measured_ms
        if 0 <= elapsed_ms < _MEASURED_MS:
            return
        counts, self._counts = self._counts, Counter()
        self._measured_ms = now_ms
        if 0 <= elapsed_ms <= _MAX_GAP_MS:
            self._measure(counts, now_ms, elapsed_ms)
        else:
            self._began_ms = now_ms
            self._high_since_ms.clear()

    def _measure(self, counts: Counter[str], now_ms: int, elapsed_ms: int) -> None:
        high, low = self._thresholds.opens_at_refused_per_s, self._thresholds.closes_below_refused_per_s
        per_s = {sale_id: count * 1_000 / elapsed_ms for sale_id, count in counts.items()}
        for sale_id, rate in per_s.items():
            if rate >= high:
                self._high_since_ms.setdefault(sale_id, now_ms - elapsed_ms)
            if rate >= low:
                self._busy_ms[sale_id] = now_ms
        for sale_id in [sale_id for sale_id in self._high_since_ms if per_s.get(sale_id, 0) < low]:
            del self._high_since_ms[sale_id]
        oldest_ms = now_ms - self._calm_ms()
        self._busy_ms = {sale_id: ms for sale_id, ms in self._busy_ms.items() if ms > oldest_ms}

    def has_risen(self, sale_id: str) -> bool:
        """Tell whether many orders of a sale are refused, for however short a time."""
        return sale_id in self._high_since_ms

    def is_high(self, sale_id: str) -> bool:
        """Tell whether so many orders of a sale have been refused for so long that its room opens.

        A rate between the two thresholds neither begins nor ends that time.
        """
        since_ms = self._high_since_ms.get(sale_id)
        return since_ms is not None and self._measured_ms - since_ms >= self._thresholds.opens_after_s * 1_000

    def begin_again(self, sale_id: str) -> None:
        """Begin the time of many refusals of a sale again."""
        self._high_since_ms.pop(sale_id, None)

    def is_calm(self, sale_id: str) -> bool:
        """Tell whether so few orders of a sale have been refused for so long that its room closes."""
        since_ms = max(self._began_ms, self._busy_ms.get(sale_id, 0))
        return self._measured_ms - since_ms >= self._calm_ms()

    def note_waiting(self, sale_id: str) -> None:
        """Begin the calm time of a sale again: people wait in its room."""
        self._busy_ms[sale_id] = self._measured_ms

    def _calm_ms(self) -> float:
        return self._thresholds.closes_after_s * 1_000
