"""Cases for customers and staff."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from redis.asyncio import Redis

from commerce.aftersales import store
from commerce.aftersales.case_actions import CaseActions
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_requests import CaseRequests, StaffCase
from commerce.aftersales.errors import NoSuchCase
from commerce.aftersales.exchange_offers import ExchangeOffers
from commerce.aftersales.model import Case, CaseInput, CaseSummary, View
from commerce.aftersales.policies import ReturnPolicies
from commerce.exchanges.service import ReplacementOrders
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder

_LAST = UUID(int=2**128 - 1)
_FIRST = UUID(int=0)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class Aftersales:
    """Cases over Postgres: reads them, and has what changes them.

    `zone` is the shop's time zone, in which days are counted."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, policy: AftersalesPolicy, zone: ZoneInfo, redis: Redis
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self.policies = ReturnPolicies(db, clock)
        offers = ExchangeOffers(ReplacementOrders(db, redis, clock))
        self.requests = CaseRequests(db, clock, ids, policy, zone, offers)
        self.actions = CaseActions(db, clock, CaseDecisions(ids, policy), self.requests, policy)

    async def request(self, order_id: UUID, user_id: str, key: str, request: CaseInput) -> tuple[Case, bool]:
        """Store a customer's request as `CaseRequests.request`. Returns the case, and whether it is new."""
        case_id, is_new = await self.requests.request(order_id, user_id, key, request)
        return await self.get(case_id, user_id), is_new

    async def open_for_customer(self, order_id: UUID, request: CaseInput, reason: str, actor: str) -> Case:
        """Open a case for a customer, as staff. Raises `NoSuchOrder`, `NotReturnable`."""
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            staff_case = StaffCase(str(self._ids.new()), request, reason)
            case_id = await self.requests.create_staff_case(connection, order, staff_case, actor)
        return await self.get(case_id, None)

    async def get(self, case_id: UUID, user_id: str | None) -> Case:
        """Read a case with its lines and events.

        For staff (`user_id` None) that of any customer. Raises `NoSuchCase`."""
        async with self._db.connection() as connection:
            case = await store.get_case(connection, case_id)
            if case is None or user_id not in (None, case.user_id):
                raise NoSuchCase(f"there is no case {case_id}")
            lines = (await store.list_lines(connection, [case_id]))[case_id]
            events = (await store.list_events(connection, [case_id]))[case_id]
            evidence = await store.list_evidence(connection, case_id)
        return Case(case=case, lines=lines, events=events, evidence=evidence)

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
