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
    worker_name: str,
    step: Callable[[], Awaitable[int]],
    stop: asyncio.Event,
    poll_interval_s: float,
    due: asyncio.Event | None = None,
    may_have_more: Callable[[], bool] = lambda: True,
) -> None:
    """Call `step` until `stop` is set.

    `step` returns the number of its jobs. After 0, and unless it `may_have_more`, the loop waits `poll_interval_s`
    seconds, or until `due` is set. A running step is finished. A failed step is logged, counted and repeated: its jobs
    are rows, so none is lost."""
    while not stop.is_set():
        if due is not None:
            due.clear()
        try:
            jobs = await step()
        except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
            log_failure(_logger, "retrying a failed step", error, worker=worker_name)
            metrics.WORKER_FAILURES.labels(worker_name).inc(error.count if isinstance(error, SomeFailed) else 1)
            await wait_or_stop(stop, _RETRY_INTERVAL_S)
            continue
        if jobs:
            metrics.WORKER_JOBS.labels(worker_name).inc(jobs)
        if not jobs or not may_have_more():
            await _wait(stop, due, poll_interval_s)


async def _wait(stop: asyncio.Event, due: asyncio.Event | None, seconds: float) -> None:
    """Wait until one of the events is set, at most some seconds."""
    if due is None:
        await wait_or_stop(stop, seconds)
        return
    waits = [asyncio.create_task(event.wait()) for event in (stop, due)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but return at once when `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
