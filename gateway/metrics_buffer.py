"""Counts of the hot path: plain numbers, flushed into the shared metrics.

They are flushed once a second and before each scrape. Each count that Prometheus's client shares between processes
costs more than the decoding of a whole order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gateway import metrics


class HistogramBuffer:
    """The counts of a histogram since the last flush."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self, histogram: Any) -> None:
        """Add the observations to a histogram with the same bounds.

        This uses private attributes: buckets have no public method to add many observations.
        """
        if not any(self._counts):
            return
        counts, total = self._counts, self._sum
        self._counts, self._sum = [0] * len(counts), 0.0
        for bucket, count in zip(histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        histogram._sum.inc(total)


class MetricsBuffer:
    """The counts of one gateway process since the last flush."""

    def __init__(self) -> None:
        self.reserve_seconds = HistogramBuffer(metrics.RESERVE_BOUNDS)
        self.reserve_batch_orders = HistogramBuffer(metrics.BATCH_BOUNDS)
        self.intake_wait_seconds = HistogramBuffer(metrics.RESERVE_BOUNDS)
        self._connection_wait_seconds = {
            share: HistogramBuffer(metrics.CONNECTION_WAIT_BOUNDS) for share in metrics.DATABASE_SHARES
        }
        self.shed_orders = 0
        """orders refused for overload since the last flush"""
        self._orders: dict[str, int] = defaultdict(int)
        self._cached_reads: dict[tuple[str, str], int] = defaultdict(int)
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, HistogramBuffer] = {}

    def count_order(self, outcome: str) -> None:
        """Count an answered order."""
        self._orders[outcome] += 1

    def count_cached_reads(self, cache: str, hits: int, misses: int) -> None:
        """Count reads that a cache answered, and those for which it asked a database."""
        self._cached_reads[cache, "hit"] += hits
        self._cached_reads[cache, "miss"] += misses

    def observe_connection_wait(self, share: str, seconds: float, is_granted: bool) -> None:
        """Observe the wait for a database connection, which may have been in vain."""
        self._connection_wait_seconds[share].observe(seconds)
        if not is_granted:
            metrics.DATABASE_REFUSALS.labels(share).inc()

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request and observe its duration."""
        self._requests[route, method, status] += 1
        histogram = self._seconds.get(route)
        if histogram is None:
            histogram = self._seconds[route] = HistogramBuffer(metrics.REQUEST_BOUNDS)
        histogram.observe(seconds)

    def count_refusal(self, code: str, route: str, status: int) -> None:
        """Count a refused order with a prebuilt answer; its duration says nothing."""
        self._orders[code] += 1
        self._requests[route, "POST", status] += 1

    def flush(self) -> None:
        """Add all counts to the metrics and reset them."""
        orders, self._orders = self._orders, defaultdict(int)
        for outcome, count in orders.items():
            metrics.ORDERS.labels(outcome).inc(count)
        cached_reads, self._cached_reads = self._cached_reads, defaultdict(int)
        for (cache, result), count in cached_reads.items():
            metrics.CACHED_READS.labels(cache, result).inc(count)
        requests, self._requests = self._requests, defaultdict(int)
        for (route, method, status), count in requests.items():
            metrics.REQUESTS.labels(route, method, status).inc(count)
        for route, histogram in self._seconds.items():
            histogram.flush(metrics.REQUEST_SECONDS.labels(route))
        for share, histogram in self._connection_wait_seconds.items():
            histogram.flush(metrics.DATABASE_WAIT_SECONDS.labels(share))
        self.reserve_seconds.flush(metrics.RESERVE_SECONDS)
        self.reserve_batch_orders.flush(metrics.RESERVE_BATCH_ORDERS)
        self.intake_wait_seconds.flush(metrics.INTAKE_WAIT_SECONDS)
