"""Deletes old rows in steps. Several processes may: each skips the rows that another one deletes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database
from commerce.retention import store
from commerce.retention.model import Deletion, Table


class Retention:
    """Deletes at most `rows_per_step` rows of a table at a time, once they are older than `ages` says."""

    def __init__(self, db: Database, clock: Clock, ages: Mapping[Table, timedelta], rows_per_step: int) -> None:
        self._db = db
        self._clock = clock
        self._ages = ages
        self._rows_per_step = rows_per_step

    async def delete_old(self, table: Table) -> Deletion:
        """Delete the oldest rows of a table that are past their age and no longer needed."""
        before = from_ms(self._clock.now_ms()) - self._ages[table]
        async with self._db.connection() as connection:
            times = await store.delete_old(connection, table, before, self._rows_per_step)
        is_finished = len(times) < self._rows_per_step
        return Deletion(len(times), timedelta() if is_finished else before - max(times))
