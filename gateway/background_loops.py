"""Loops that run beside the requests of a gateway process until they are cancelled."""

from __future__ import annotations

import logging

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock
from gateway import metrics
from gateway.admission import Admission
from gateway.metrics_buffer import MetricsBuffer
from gateway.sale_snapshots import SaleSnapshots
from lua import SaleKeys

_logger = logging.getLogger(__name__)
_BACKLOG_POLL_INTERVAL_S = 0.25
_METRICS_FLUSH_INTERVAL_S = 1.0


async def flush_metrics_forever(metrics_buffer: MetricsBuffer, admission: Admission, clock: Clock) -> None:
    """Flush the buffered counts into the metrics once a second."""
    while True:
        metrics_buffer.flush()
        metrics.WAITING.set(admission.waiting)
        await clock.sleep(_METRICS_FLUSH_INTERVAL_S)


async def poll_backlog_forever(redis: Redis, snapshots: SaleSnapshots, admission: Admission, clock: Clock) -> None:
    """Keep `admission` informed of the number of accepted orders that wait for the writer."""
    while True:
        try:
            sales = [SaleKeys(sale_id) for sale_id in snapshots.sale_ids()]
            admission.backlog = sum(await lua.read_accepted_counts(redis, sales))
        except Exception as error:  # noqa: BLE001  # the calls of orders fail for the same reason and answer it
            _logger.warning("cannot read the backlog", extra={"reason": str(error)})
        await clock.sleep(_BACKLOG_POLL_INTERVAL_S)
