"""Cancellations that wait for a shipment to be stopped: a worklist of staff, and its gauges."""

from __future__ import annotations

from commerce.cancellations import store
from commerce.cancellations.model import OpenCancellation
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database

_MAX_LISTED = 500


class OpenCancellations:
    """Reads over Postgres that show which cancellations are not done."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_oldest(self) -> list[OpenCancellation]:
        """List up to 500 of them, oldest first, with what last went wrong with their shipments."""
        async with self._db.connection() as connection:
            return [OpenCancellation(*row) for row in await store.list_open(connection, _MAX_LISTED)]

    async def measure(self) -> tuple[int, float]:
        """Return their number, and the age of the oldest in seconds."""
        async with self._db.connection() as connection:
            return await store.measure_open(connection, from_ms(self._clock.now_ms()))
