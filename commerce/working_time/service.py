"""Working calendars, which staff set."""

from __future__ import annotations

from asyncpg import ForeignKeyViolationError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.working_time import store
from commerce.working_time.errors import NoSuchCalendar
from commerce.working_time.model import CalendarTerms, StoredCalendar

DEFAULT_CALENDAR = "default"
MAX_CALENDARS = 100


class WorkingCalendars:
    """Calendars over Postgres. Deadlines that are open follow a change."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_calendars(self, cursor: str | None, count: int) -> Page[StoredCalendar]:
        """List calendars by id."""
        async with self._db.connection() as connection:
            calendars = await store.list_calendars(connection, None, cursor or "", count + 1)
        return to_page(calendars, count, lambda calendar: calendar.calendar_id)

    async def get(self, calendar_id: str) -> StoredCalendar:
        """Read a calendar. Raises `NoSuchCalendar`."""
        async with self._db.connection() as connection:
            calendars = await store.list_calendars(connection, calendar_id, "", 1)
        if not calendars:
            raise NoSuchCalendar(f"there is no working calendar {calendar_id!r}")
        return calendars[0]

    async def put(self, calendar_id: str, terms: CalendarTerms, actor: str) -> StoredCalendar:
        """Create a calendar, or replace it whole. Raises `Conflict` if there are too many."""
        async with self._db.transaction() as connection:
            if await store.count_others(connection, calendar_id) >= MAX_CALENDARS:
                raise Conflict(f"cannot add a calendar: there are {MAX_CALENDARS}; delete one")
            await store.put_calendar(connection, calendar_id, terms, from_ms(self._clock.now_ms()), actor)
        return await self.get(calendar_id)

    async def delete(self, calendar_id: str) -> None:
        """Delete a calendar. Raises `NoSuchCalendar`, `Conflict` if a policy uses it."""
        if calendar_id == DEFAULT_CALENDAR:
            raise Conflict("cannot delete the calendar 'default'; replace its terms")
        try:
            async with self._db.transaction() as connection:
                if not await store.delete_calendar(connection, calendar_id):
                    raise NoSuchCalendar(f"there is no working calendar {calendar_id!r}")
        except ForeignKeyViolationError:
            raise Conflict("cannot delete the calendar: a policy of deadlines uses it; change that first") from None
