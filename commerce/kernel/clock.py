"""The clock port: code reads time through it, so that the same code runs on a simulated clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000


class Clock(Protocol):
    """Current time, elapsed time and sleeping."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since a fixed point; the value never decreases."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def from_ms(ms: int) -> datetime:
    """Convert milliseconds since 1970 exactly, which `datetime.fromtimestamp` with a float does not."""
    return EPOCH + timedelta(milliseconds=ms)


def to_ms(moment: datetime) -> int:
    """Convert to milliseconds since 1970, without the microseconds."""
    return (moment - EPOCH) // timedelta(milliseconds=1)
