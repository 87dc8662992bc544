"""Measures of cases for the gauges."""

from __future__ import annotations

from commerce.aftersales import store
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database


class CaseGauges:
    """Counts open cases, and measures how long decisions take."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def count_open(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Count open cases and those past their deadline, by kind and whoever must act."""
        async with self._db.connection() as connection:
            return await store.count_open(connection, from_ms(self._clock.now_ms()))

    async def measure_decisions(self) -> list[float]:
        """Measure the seconds until the first decision: percentiles 50, 90 and 99 of the last day's, if any."""
        async with self._db.connection() as connection:
            return await store.measure_decisions(connection, from_ms(self._clock.now_ms()))
