"""What every worker process has: connections, services, a way to be stopped."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import start_http_server
from redis.asyncio import Redis

from commerce.audit.service import Audit
from commerce.kernel.bind import explain_bind_errors
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.errors import NotReady
from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from commerce.reservations.service import Reservations
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from config.settings import Settings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """What a worker may use. `instance` names this process among others of its kind, the same after a restart."""

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


Worker = Callable[[WorkerServices], Awaitable[None]]
"""Runs until `stop` is set, then finishes what it has in hand and returns."""


@asynccontextmanager
async def open_worker_services(settings: Settings, instance: str) -> AsyncIterator[WorkerServices]:
    """Connect and check. Raises `NotReady` if a database is not what it should be."""
    driver, clock = settings.jobs, SystemClock()
    async with AsyncExitStack() as stack:
        writer = settings.writer
        redis, db = await stack.enter_async_context(
            connect_databases(
                settings, "worker", extra_connections=writer.concurrent_reads, extra_timeout_ms=writer.read_block_ms
            )
        )
        policy = RetryPolicy.from_settings(driver)
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
        )


async def run(settings: Settings, workers: Sequence[tuple[str, Worker]], instance: str) -> None:
    """Run workers in this process until SIGTERM or SIGINT. One that fails ends the process, to be started anew."""
    if port := settings.observer.worker_metrics_port:
        with explain_bind_errors("*", port, "FLOODGATE_OBSERVER__WORKER_METRICS_PORT"):
            start_http_server(port)
    async with open_worker_services(settings, instance) as workshop:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, workshop.stop.set)
        names = [name for name, _ in workers]
        tune_garbage_collector()
        _logger.info("working", extra={"workers": names, "instance": workshop.instance})
        try:
            async with asyncio.TaskGroup() as group:
                for name, worker in workers:
                    group.create_task(_ending(worker, workshop), name=name)
        except ExceptionGroup as error:
            if refused := error.subgroup(NotReady):
                raise refused.exceptions[0] from None
            raise
        _logger.info("stopped", extra={"workers": names})


async def _ending(worker: Worker, workshop: WorkerServices) -> None:
    try:
        await worker(workshop)
    finally:
        workshop.stop.set()
