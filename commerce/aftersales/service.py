"""Reads cases, for customers and staff."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.errors import NoSuchCase
from commerce.aftersales.model import Case, CaseSummary, View
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

_LAST = UUID(int=2**128 - 1)
_FIRST = UUID(int=0)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Aftersales:
    """Cases over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def get(self, case_id: UUID, user_id: str | None) -> Case:
        """Read a case with its lines and events.

        For staff (`user_id` None) that of any customer. Raises `NoSuchCase`."""
        async with self._db.connection() as connection:
            case = await store.get_case(connection, case_id)
            if case is None or user_id not in (None, case.user_id):
                raise NoSuchCase(f"there is no case {case_id}")
            lines = (await store.list_lines(connection, [case_id]))[case_id]
            events = (await store.list_events(connection, [case_id]))[case_id]
        return Case(case=case, lines=lines, events=events, evidence=[])

    async def list_of_user(self, user_id: str, cursor: UUID | None, count: int) -> Page[CaseSummary]:
        """List the cases of a customer, newest first."""
        async with self._db.connection() as connection:
            cases = await store.list_of_user(connection, user_id, cursor or _LAST, count + 1)
        return to_page(cases, count, lambda case: str(case.case_id))

    async def list_of_order(self, order_id: UUID) -> list[CaseSummary]:
        """List the cases of an order, oldest first."""
        async with self._db.connection() as connection:
            return await store.list_of_order(connection, order_id)

    async def list_view(self, view: View, cursor: UUID | None, count: int) -> Page[CaseSummary]:
        """List cases for staff: `all` newest first, others open ones by deadline."""
        now = from_ms(self._clock.now_ms())
        async with self._db.connection() as connection:
            if view == "all":
                cases = await store.list_all(connection, cursor or _LAST, count + 1)
            else:
                last = await store.get_case(connection, cursor) if cursor else None
                after = (last.due_at or _EARLIEST, last.case_id) if last else (_EARLIEST, _FIRST)
                waits_for = None if view in ("overdue", "escalated") else view
                due_before = now if view == "overdue" else None
                is_escalated = view == "escalated"
                cases = await store.list_open(connection, after, waits_for, is_escalated, due_before, count + 1)
        return to_page(cases, count, lambda case: str(case.case_id))
