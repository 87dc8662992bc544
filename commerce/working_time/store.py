"""Rows of working calendars."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.working_time.model import CalendarTerms, StoredCalendar
from commerce.working_time.working_calendar import WorkingCalendar, uncertain_from

queries = load_queries(__package__)


async def list_calendars(
    connection: Connection, calendar_id: str | None, after: str, count: int
) -> list[StoredCalendar]:
    """List calendars by id, or the one with an id."""
    calendars = []
    for row in await connection.fetch(queries.list_calendars, calendar_id, after, count):
        terms = msgspec.json.decode(row["terms"], type=CalendarTerms)
        calendars.append(StoredCalendar(**{**row, "terms": terms}, uncertain_from=uncertain_from(terms)))
    return calendars


async def put_calendar(
    connection: Connection, calendar_id: str, terms: CalendarTerms, now: datetime, actor: str
) -> None:
    """Create a calendar, or replace it whole."""
    await connection.execute(queries.put_calendar, calendar_id, msgspec.json.encode(terms).decode(), now, actor)


async def count_others(connection: Connection, calendar_id: str) -> int:
    """Count the calendars with another id."""
    count: int = await connection.fetchval(queries.count_calendars, calendar_id)
    return count


async def delete_calendar(connection: Connection, calendar_id: str) -> bool:
    """Delete a calendar. False if there is none. Raises `ForeignKeyViolationError` if a policy uses it."""
    return await connection.fetchval(queries.delete_calendar, calendar_id) is not None


@lru_cache(maxsize=128)
def compile_calendar(terms: str) -> WorkingCalendar:
    """Return a calendar that computes from its stored terms. Its computed years stay in memory."""
    return WorkingCalendar(msgspec.json.decode(terms, type=CalendarTerms))
