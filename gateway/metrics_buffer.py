"""Counts on the hot path: plain numbers, carried over into the shared metrics once a second and before they are read.

Each count that Prometheus's client shares between processes costs more than a whole decoded order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gateway import metrics


class HistogramBuffer:
    """A histogram's counts since they were last carried over."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self, histogram: Any) -> None:
        """Add what was observed to a histogram with the same bounds; its buckets have no public way to add many."""
        if not any(self._counts):
            return
        counts, total = self._counts, self._sum
        self._counts, self._sum = [0] * len(counts), 0.0
        for bucket, count in zip(histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        histogram._sum.inc(total)


class MetricsBuffer:
    """What one gateway process has counted since the last second."""

    def __init__(self) -> None:
        self.redis_seconds = HistogramBuffer(metrics.REDIS_BOUNDS)
        self.batch_orders = HistogramBuffer(metrics.BATCH_BOUNDS)
        self._orders: dict[str, int] = defaultdict(int)
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, HistogramBuffer] = {}

    def order(self, outcome: str) -> None:
        """An order that was answered."""
        self._orders[outcome] += 1

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._requests[route, method, status] += 1
        bars = self._seconds.get(route)
        if bars is None:
            bars = self._seconds[route] = HistogramBuffer(metrics.REQUEST_BOUNDS)
        bars.observe(seconds)

    def flush(self) -> None:
        """Bring it all into the metrics."""
        orders, self._orders = self._orders, defaultdict(int)
        for outcome, count in orders.items():
            metrics.ORDERS.labels(outcome).inc(count)
        requests, self._requests = self._requests, defaultdict(int)
        for (route, method, status), count in requests.items():
            metrics.REQUESTS.labels(route, method, status).inc(count)
        for route, bars in self._seconds.items():
            bars.flush(metrics.REQUEST_SECONDS.labels(route))
        self.redis_seconds.flush(metrics.REDIS_SECONDS)
        self.batch_orders.flush(metrics.BATCH_ORDERS)
