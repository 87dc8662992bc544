"""Ending background tasks."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_S = 0.1


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over; its outcome is not looked at.

    One cancel is not always enough: before Python 3.12 `asyncio.wait_for`, which clients use inside, loses a cancel
    that comes in the same moment as what it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_S)
