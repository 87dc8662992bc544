"""The loop that all drivers share: work while there is work, then look again after a moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from workers import metrics

_logger = logging.getLogger(__name__)
_AFTER_FAILURE_S = 1.0


async def run_steps(name: str, step: Callable[[], Awaitable[int]], stop: asyncio.Event, poll_s: float) -> None:
    """Call `step`, which gives the number of jobs it worked on, until `stop`; a step in hand is finished.

    A step that fails is logged, counted and repeated: its jobs are rows, so nothing is lost with it.
    """
    while not stop.is_set():
        try:
            done = await step()
        except Exception:
            _logger.exception("a step failed and is repeated", extra={"driver": name})
            metrics.DRIVER_FAILURES.labels(name).inc()
            await wait_or_stop(stop, _AFTER_FAILURE_S)
            continue
        if done:
            metrics.DRIVER_STEPS.labels(name).inc(done)
        else:
            await wait_or_stop(stop, poll_s)


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but wake up at once when it is time to stop."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
