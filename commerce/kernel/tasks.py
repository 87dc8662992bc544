"""Cancellation of background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

_RETRY_INTERVAL_S = 0.1


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it ends, whatever its result.

    One cancel is not always enough: before Python 3.12 `asyncio.wait_for`, which client libraries use, loses a cancel
    that comes at the same moment as its result.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_RETRY_INTERVAL_S)
