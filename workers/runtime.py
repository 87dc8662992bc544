"""The runtime of a worker process: connections, services, and how it is stopped."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import start_http_server
from redis.asyncio import Redis

from commerce.audit.service import Audit
from commerce.jobs.wake_ups import WakeUpListener, listen_for_due_jobs, open_wake_ups
from commerce.kernel.bind import explain_bind_errors
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.errors import NotReady
from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from commerce.kernel.stop_signals import stop_on_signals
from commerce.reservations.service import Reservations
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from config.settings import Settings
from workers import metrics

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """The services of a worker. `instance` identifies this process among others, also after a restart."""

    settings: Settings
    instance: str
    clock: Clock
    db: Database
    redis: Redis
    sales: Sales
    stock: StockChanges
    reservations: Reservations
    audit: Audit
    stop: asyncio.Event
    due_jobs: WakeUpListener[str]


Worker = Callable[[WorkerServices], Awaitable[None]]
"""runs until `stop` is set, then finishes its running work and returns"""


@asynccontextmanager
async def open_worker_services(settings: Settings, instance: str) -> AsyncIterator[WorkerServices]:
    """Connect to both databases and create the services. Raises `NotReady` if a database fails its checks."""
    writer, clock = settings.writer, SystemClock()
    async with AsyncExitStack() as stack:
        redis, db = await stack.enter_async_context(
            connect_databases(
                settings, "worker", extra_connections=writer.concurrent_reads + 1, extra_timeout_ms=writer.read_block_ms
            )
        )
        await stack.enter_async_context(open_wake_ups(redis, db))
        due_jobs = await stack.enter_async_context(listen_for_due_jobs(redis, clock))
        policy = RetryPolicy.from_settings(settings.jobs)
        yield WorkerServices(
            settings=settings,
            instance=f"{socket.gethostname()}-{instance}",
            clock=clock,
            db=db,
            redis=redis,
            sales=Sales(db, redis, clock),
            stock=StockChanges(db, redis, clock, policy),
            reservations=Reservations(db, redis, clock, policy),
            audit=Audit(db, redis, clock),
            stop=asyncio.Event(),
            due_jobs=due_jobs,
        )


async def run(settings: Settings, workers: Sequence[tuple[str, Worker]], instance: str) -> None:
    """Run workers in this process until SIGTERM, SIGINT or SIGHUP. A worker that fails ends the process.

    Raises `NotReady` if a worker cannot start."""
    host, port = settings.observer.worker_metrics_host, settings.observer.worker_metrics_port
    if port:
        with explain_bind_errors(host, port, "FLOODGATE_OBSERVER__WORKER_METRICS_PORT"):
            start_http_server(port, host)
    async with open_worker_services(settings, instance) as services:
        stop_on_signals(services.stop)
        names = [name for name, _ in workers]
        metrics.create_series(names)
        tune_garbage_collector()
        _logger.info("started", extra={"workers": names, "instance": services.instance})
        try:
            async with asyncio.TaskGroup() as group:
                for name, worker in workers:
                    group.create_task(_run_worker(worker, services), name=name)
        except ExceptionGroup as error:
            if not_ready := error.subgroup(NotReady):
                raise not_ready.exceptions[0] from None
            raise
        _logger.info("stopped", extra={"workers": names})


async def _run_worker(worker: Worker, services: WorkerServices) -> None:
    """Run a worker, and stop the others of this process when it ends."""
    try:
        await worker(services)
    finally:
        services.stop.set()
