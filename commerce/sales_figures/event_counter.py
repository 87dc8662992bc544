"""Adds up what was noted, in small steps. Several processes may: one of them works at a time.

A note is deleted in the transaction that adds its events, so each counts once. It does not matter which events a step
takes, and when: the sums are the same once all notes are gone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from asyncpg import SerializationError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.sales_figures import store
from commerce.sales_figures.model import CountedEvent, EventKind
from commerce.sales_figures.store import Added

EVENTS_PER_STEP = 500
_VISITS_PER_STEP = 2
_ORDERS_PER_NOTE = 500
_ATTEMPTS, _PAUSE_S = 100, 0.1
_FIRST_DAY, _LAST_DAY = date(2000, 1, 1), date(2999, 12, 31)
"""carriers' times and all others lie between"""
_Sums = dict[tuple[str, str, date, str, str], list[int]]


class EventCounter:
    """Counts events of sales by minute, and by day of the zone."""

    def __init__(self, db: Database, clock: Clock, zone: ZoneInfo, events_per_step: int = EVENTS_PER_STEP) -> None:
        self._db = db
        self._clock = clock
        self._zone = zone
        self._events_per_step = events_per_step

    async def step(self) -> int:
        """Count the oldest events. Returns how many notes were taken, 0 also while another process counts."""
        async with self._db.transaction() as connection:
            return await self._count_some(connection) if await store.try_lock(connection) else 0

    async def measure_lag(self) -> timedelta:
        """Return the age of the oldest event that is not counted yet."""
        async with self._db.connection() as connection:
            noted_at = await store.oldest_note(connection)
        return max(timedelta(), from_ms(self._clock.now_ms()) - noted_at) if noted_at else timedelta()

    async def recount(self, sale_id: str, first_day: date | None = None, last_day: date | None = None) -> None:
        """Delete the sums of a sale, of all or some days, and note their events again for the next steps.

        All happens in one snapshot, which sees an event if and only if it sees or lacks its note: no event is lost, and
        none counts twice, whatever is stored meanwhile. What gateways have counted stays: no rows have it."""
        first, after = first_day or _FIRST_DAY, (last_day or _LAST_DAY) + timedelta(days=1)
        moments = self._start_of(first), self._start_of(after)
        for attempt in range(_ATTEMPTS):
            try:
                async with self._db.transaction(isolation="repeatable_read") as connection:
                    if await store.try_lock(connection):
                        while await self._count_some(connection):
                            pass
                        await store.delete_sums(connection, sale_id, (first, after), moments)
                        async for order_ids in store.iterate_orders(connection, sale_id, _ORDERS_PER_NOTE):
                            await store.note_again(connection, order_ids, moments)
                        return
            except SerializationError:  # a step ended between the snapshot and the lock
                if attempt == _ATTEMPTS - 1:
                    raise
            await asyncio.sleep(_PAUSE_S)
        raise TimeoutError("cannot count the sale again: another process is counting; repeat the command")

    async def _count_some(self, connection: Connection) -> int:
        events: defaultdict[EventKind, list[tuple[UUID, int]]] = defaultdict(list)
        batches = await store.take_events(connection, self._events_per_step)
        for kind, batch in batches:
            events[kind] += batch
        minutes: _Sums = {}
        for kind, of_kind in events.items():
            _add_events(minutes, await store.read_events(connection, kind, of_kind))
        visits = await store.take_visits(connection, _VISITS_PER_STEP)
        for visit in visits:
            _add(minutes, (visit.sale_id, visit.sku, visit.minute, visit.figure, ""), visit.times, 0, 0)
        if minutes:
            days: _Sums = {}
            for (sale_id, sku, minute, figure, reason), sums in minutes.items():
                assert isinstance(minute, datetime)
                _add(days, (sale_id, sku, minute.astimezone(self._zone).date(), figure, reason), *sums)
            await store.add_minutes(connection, (Added(*key, *sums) for key, sums in minutes.items()))
            await store.add_days(connection, (Added(*key, *sums) for key, sums in days.items()))
        return len(batches) + len(visits)

    def _start_of(self, day: date) -> datetime:
        return datetime.combine(day, time(), self._zone).astimezone(UTC)


def _add_events(sums: _Sums, events: Iterable[CountedEvent]) -> None:
    for event in events:
        minute = event.at.replace(second=0, microsecond=0)
        _add(sums, (event.sale_id, event.sku, minute, event.figure, event.reason), 1, event.units, event.amount)


def _add(sums: _Sums, key: tuple[str, str, date, str, str], *values: int) -> None:
    stored = sums.setdefault(key, [0, 0, 0])
    for place, value in enumerate(values):
        stored[place] += value
