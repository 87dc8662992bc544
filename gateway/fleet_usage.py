"""The exchange that makes rate limits hold over all gateways, without a call to Redis for each order.

A process reports a user, address or device once it has used a share of its burst there, and takes what the others
report from its own buckets. So requests spread over N gateways get the limit once. Beyond it they get a share less one
token at each gateway, and a burst at each when all come between two exchanges; such a burst is a debt, paid by waiting.
"""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.outages import log_failure
from gateway import metrics
from gateway.rate_limits import RateLimits
from gateway.refused_orders import RefusedOrders

_logger = logging.getLogger(__name__)
_INTERVAL_S, _TIMEOUT_S = 0.25, 2.0
_MAX_NAMES_PER_REPORT = 200


class FleetUsage:
    """Reports what this process used of the rate limits, and applies the reports of the others.

    Refused orders of sales with an automatic waiting room are reported too; the keepers of rooms read them.
    """

    def __init__(
        self, redis: Redis, rate_limits: RateLimits, refused_orders: RefusedOrders, clock: Clock, reporter: bytes
    ) -> None:
        self._redis = redis
        self._rate_limits = rate_limits
        self._refused_orders = refused_orders
        self._clock = clock
        self._reporter = reporter
        self._last_id: bytes | None = None
        """the newest report that was read"""
        self._is_failing = False

    async def exchange_forever(self) -> None:
        """Exchange several times a second until cancelled. Without Redis each process limits alone."""
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self.exchange()
            except Exception as error:  # noqa: BLE001  # the next exchange may succeed
                metrics.USAGE_EXCHANGE_FAILURES.inc()
                if not self._is_failing:
                    log_failure(_logger, "cannot exchange rate limits; they hold for each gateway alone", error)
                self._is_failing = True
            else:
                self._is_failing = False
            await self._clock.sleep(_INTERVAL_S)

    async def exchange(self) -> None:
        """Report the heaviest use since the last exchange and apply the new reports of other processes.

        A report that fails is not repeated: it may have arrived, and nobody is to be charged twice.
        """
        used = {}
        for buckets in self._rate_limits.all:
            refused, buckets.refused = buckets.refused, 0
            metrics.RATE_LIMITED.labels(buckets.kind).inc(refused)
            if shared := buckets.take_unshared(_MAX_NAMES_PER_REPORT):
                used[buckets.kind] = shared
        if self._last_id is None:
            self._last_id = await lua.find_last_usage_report(self._redis)
        refused_orders = self._refused_orders.take(_MAX_NAMES_PER_REPORT)
        more = {lua.REFUSED_ORDERS: refused_orders} if refused_orders else {}
        reports = await lua.share_usage(self._redis, self._reporter, {**used, **more}, self._last_id)
        for kind, shared in used.items():
            metrics.USAGE_SHARED.labels(kind).inc(len(shared))
        for report in reports:
            self._last_id = report.id
            if report.reporter != self._reporter:
                self._apply(report)

    def _apply(self, report: lua.UsageReport) -> None:
        if report.used is None:
            _logger.warning(
                "skipped an unreadable report of used rate limits", extra={"reporter": report.reporter.hex()}
            )
            return
        for buckets in self._rate_limits.all:
            buckets.charge(report.used.get(buckets.kind, {}).items())
