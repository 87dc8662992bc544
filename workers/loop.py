"""The loop that workers share: work while jobs are due, then poll."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from commerce.kernel.errors import SomeFailed
from commerce.kernel.outages import log_failure
from workers import metrics

_logger = logging.getLogger(__name__)
_RETRY_INTERVAL_S = 1.0


async def run_steps(
    worker_name: str, step: Callable[[], Awaitable[int]], stop: asyncio.Event, poll_interval_s: float
) -> None:
    """Call `step` until `stop` is set.

    `step` returns the number of its jobs; after 0 the loop waits `poll_interval_s` seconds. A running step is finished.
    A failed step is logged, counted and repeated: its jobs are rows, so none is lost."""
    while not stop.is_set():
        try:
            jobs = await step()
        except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
            log_failure(_logger, "retrying a failed step", error, worker=worker_name)
            metrics.WORKER_FAILURES.labels(worker_name).inc(error.count if isinstance(error, SomeFailed) else 1)
            await wait_or_stop(stop, _RETRY_INTERVAL_S)
            continue
        if jobs:
            metrics.WORKER_JOBS.labels(worker_name).inc(jobs)
        else:
            await wait_or_stop(stop, poll_interval_s)


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but return at once when `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
