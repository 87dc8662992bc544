"""Loops that run beside the requests of a gateway process until they are cancelled."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.connection_shares import ConnectionShares
from commerce.kernel.outages import log_failure
from commerce.sales.server_adoption import ServerAdoption
from gateway import metrics
from gateway.admission import Admission
from gateway.database_shares import export_shares
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_intake import OrderIntake
from gateway.resting_connections import RestingConnections
from gateway.sale_snapshots import SaleSnapshots
from lua import SaleKeys

_logger = logging.getLogger(__name__)
_BACKLOG_POLL_INTERVAL_S = 0.25
_METRICS_FLUSH_INTERVAL_S = 1.0
_ADOPTION_INTERVAL_S, _ADOPTION_PAUSE_S, _REPORT_INTERVAL_S = 1.0, 0.1, 0.5


async def flush_metrics_forever(
    metrics_buffer: MetricsBuffer,
    admission: Admission,
    resting: RestingConnections,
    shares: ConnectionShares,
    clock: Clock,
) -> None:
    """Flush the buffered counts into the metrics once a second, also after a flush that failed.

    Orders refused for overload are logged here, not one by one: a line costs more than the refusal.
    """
    while True:
        try:
            shed_orders, metrics_buffer.shed_orders = metrics_buffer.shed_orders, 0
            if shed_orders:
                context = {"orders": shed_orders, "resting_connections": resting.count, "waiting": admission.unsent}
                _logger.warning("refused orders for overload", extra=context)
            metrics_buffer.flush()
            metrics.WAITING.set(admission.unsent)
            metrics.RESTING_CONNECTIONS.set(resting.count)
            export_shares(shares)
        except Exception as error:  # noqa: BLE001  # the next flush may succeed
            log_failure(_logger, "cannot flush the metrics", error)
        await clock.sleep(_METRICS_FLUSH_INTERVAL_S)


async def poll_backlog_forever(redis: Redis, snapshots: SaleSnapshots, admission: Admission, clock: Clock) -> None:
    """Keep `admission` informed of the number of accepted orders that wait for the writer."""
    while True:
        try:
            sales = [SaleKeys(sale_id) for sale_id in snapshots.sale_ids()]
            counts = await lua.read_accepted_counts(redis, sales)
            waiting = [sale for sale, count in zip(sales, counts, strict=True) if count]
            oldest = [await lua.read_oldest_entry(redis, sale) for sale in waiting]
            oldest_ms = min((entry.ms for entry in oldest if entry is not None), default=clock.now_ms())
            size = await lua.read_stream_bytes(redis, waiting) if waiting else 0
            orders = sum(count for count in counts if count is not None)
            admission.report_backlog(orders, size, (clock.now_ms() - oldest_ms) / 1000)
        except Exception as error:  # noqa: BLE001  # the calls of orders fail for the same reason and answer it
            _logger.warning("cannot read the backlog", extra={"reason": str(error)})
        await clock.sleep(_BACKLOG_POLL_INTERVAL_S)


async def adopt_sales_forever(adoption: ServerAdoption, snapshots: SaleSnapshots, intake: OrderIntake) -> None:
    """Adopt the sales when Redis is another server: at once if the intake has trouble, else each second."""
    while True:
        await asyncio.sleep(_ADOPTION_PAUSE_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(intake.trouble.wait(), 0 if adoption.is_unfinished else _ADOPTION_INTERVAL_S)
        await adopt_sales_once(adoption, snapshots, intake)


async def adopt_sales_once(adoption: ServerAdoption, snapshots: SaleSnapshots, intake: OrderIntake) -> None:
    """Adopt the sales if Redis is another server. A failure is logged: the next call repeats it."""
    intake.trouble.clear()
    try:
        await adoption.adopt_sales(snapshots.sale_ids(), intake.newest_entries())
    except Exception as error:  # noqa: BLE001  # the calls of orders fail for the same reason and answer it
        _logger.warning("cannot see which server Redis is", extra={"reason": str(error)})
    metrics.SALES_BEHIND.set(len(adoption.behind))


async def report_entries_forever(adoption: ServerAdoption, intake: OrderIntake, clock: Clock) -> None:
    """Note the newest entries in Postgres, so that a Redis that lacks them is known to be behind."""
    while True:
        await adoption.report_entries(intake.newest_entries())
        await clock.sleep(_REPORT_INTERVAL_S)
