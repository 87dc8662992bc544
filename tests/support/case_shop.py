"""Cases over a shop with delivered orders. Jobs of cases run only when the test works on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.aftersales.case_actions import CaseActions
from commerce.aftersales.case_deadlines import CaseJobs
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_exchanges import CaseExchanges
from commerce.aftersales.case_requests import CaseRequests, StaffCase
from commerce.aftersales.case_status import change_case, lock_case
from commerce.aftersales.kept_units import KeptUnitCases
from commerce.aftersales.model import ApprovalInput, Case, CaseInput, CaseKind, CaseLineInput, CasePreview, ClaimKind
from commerce.aftersales.service import Aftersales
from commerce.aftersales.store import UnitCounts, set_unit_counts
from commerce.exchanges.service import ReplacementOrders
from commerce.kernel.clock import from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.orders import store as orders
from config.aftersales import AftersalesSettings
from tests.support.shipping_shop import ShippingShop, tracking_event

RETURN, EXCHANGE, CLAIM, REFUND_ONLY = CaseKind
STAFF = "staff sue"


@dataclass
class CaseShop:
    """Cases of a `ShippingShop`."""

    ship: ShippingShop
    requests: CaseRequests
    actions: CaseActions
    cases: Aftersales
    jobs: CaseJobs

    async def add_delivered(self, *lines: tuple[str, int, int], days_ago: float = 0, **options: Any) -> UUID:
        """Insert an order of (sku, units, address no) whose shipments are delivered."""
        order_id, shipments = await self.ship.add_booked_order(*lines, **options)
        for shipment in shipments:
            await self.ship.apply_events(
                shipment.shipment_id, tracking_event("delivered", code=str(shipment.parcel_no))
            )
        if days_ago:
            await self.ship.fetch_rows(
                "UPDATE shipments SET ended_at = ended_at - $2 * interval '1 day' WHERE order_id = $1 RETURNING 1",
                *(order_id, days_ago),
            )
        return order_id

    async def lines(self, order_id: UUID, *quantities: int) -> list[CaseLineInput]:
        """Return lines of the delivered shipments of an order, so many units of each; by default all units."""
        rows = await self.ship.fetch_rows(
            "SELECT shipment_id, line_no, quantity FROM shipment_lines WHERE order_id = $1 "
            "ORDER BY line_no, shipment_id",
            order_id,
        )
        counts = quantities or tuple(row["quantity"] for row in rows)
        return [
            CaseLineInput(shipment_id=row["shipment_id"], line_no=row["line_no"], quantity=count)
            for row, count in zip(rows, counts, strict=False)
            if count
        ]

    async def input(self, order_id: UUID, *quantities: int, kind: CaseKind = RETURN, **fields: Any) -> CaseInput:
        lines = fields.pop("lines", None) or await self.lines(order_id, *quantities)
        fields.setdefault("reason", "changed_my_mind")
        if kind is CLAIM:
            fields.setdefault("claim", ClaimKind.DAMAGED)
        return CaseInput(kind=kind, lines=lines, **fields)

    async def preview(self, order_id: UUID, *quantities: int, user: str = "user", **fields: Any) -> CasePreview:
        return await self.requests.preview(order_id, user, await self.input(order_id, *quantities, **fields))

    async def request(self, order_id: UUID, *quantities: int, user: str = "user", key: str = "", **fields: Any) -> UUID:
        """Request a case. Returns its id."""
        key = key or str(self.ship.shop.ids.new())
        request = await self.input(order_id, *quantities, **fields)
        case_id, _ = await self.requests.request(order_id, user, key, request)
        return case_id

    async def get(self, case_id: UUID) -> Case:
        return await self.cases.get(case_id, None)

    async def state(self, case_id: UUID) -> tuple[str, str, str]:
        """Return (status, money state, who must act)."""
        case = (await self.get(case_id)).case
        return case.status.value, case.money_state, case.waits_for

    async def approve(self, case_id: UUID, **fields: Any) -> None:
        version = (await self.get(case_id)).case.version
        fields.setdefault("reason", "approved")
        await self.actions.approve(case_id, ApprovalInput(version=version, **fields), STAFF)

    async def act(self, action: str, case_id: UUID, reason: str = "so it is", actor: str = STAFF) -> None:
        """Decline, resolve or reopen a case as staff who have just read it."""
        version = (await self.get(case_id)).case.version
        await getattr(self.actions, action)(case_id, version, actor, reason)

    async def receive(self, case_id: UUID, *counts: tuple[int, int, int]) -> None:
        """Receive and inspect (resellable, damaged, rejected) units of each line."""
        async with self.ship.shop.db.transaction() as connection:
            case, now = (await lock_case(connection, case_id)).case, from_ms(self.ship.shop.clock.now_ms())
            await set_unit_counts(
                connection, case_id, [UnitCounts(number, sum(count), *count) for number, count in enumerate(counts)]
            )
            for status in ("received", "inspected"):
                case = await change_case(
                    *(connection, case, now, STAFF, status),
                    status=type(case.status)(status),
                    items_state=status,
                    waits_for="staff",
                    due_at=case.due_at or now,
                )

    async def create_staff_case(self, order_id: UUID, key: str, request: CaseInput) -> UUID:
        async with self.ship.shop.db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            assert order is not None
            staff_case = StaffCase(key, request, "it could not be stopped")
            return await self.requests.create_staff_case(connection, order, staff_case, STAFF)

    async def pass_deadline(self, case_id: UUID) -> list[str]:
        """Let the deadline of a case pass, and do its jobs until none is due. Returns their result words."""
        await self.ship.fetch_rows(
            "UPDATE cases SET due_at = now() - interval '1 second' WHERE case_id = $1 RETURNING 1", case_id
        )
        return await self.work(case_id)

    async def work(self, case_id: UUID) -> list[str]:
        """Make the job of a case due and do it. Returns the result words."""
        query = (
            "UPDATE jobs SET due_at = now() - interval '1 second' WHERE queue = 'cases' AND subject = $1 RETURNING 1"
        )
        await self.ship.fetch_rows(query, case_id)
        words = []
        for jobs in await self.jobs.queue.claim(100, {}):
            words += [result.word for result in await self.jobs.queue.work(jobs)]
        return words

    async def refunded(self, order_id: UUID) -> int:
        query = "SELECT coalesce(sum(amount_minor), 0)::bigint FROM refunds WHERE order_id = $1 AND status <> 'failed'"
        return int(await self.ship.fetch_value(query, order_id))

    async def story(self, order_id: UUID) -> list[str]:
        rows = await self.ship.fetch_rows(
            "SELECT reason FROM order_events WHERE order_id = $1 AND kind = 'case' ORDER BY seq", order_id
        )
        return [row["reason"] for row in rows]

    async def check_records(self) -> None:
        """Check that no unit is in two cases, and that every open case has one job and somebody who must act."""
        for query in (_BEYOND_DELIVERED, _WITHOUT_JOB, _BROKEN_STORY):
            assert [tuple(row) for row in await self.ship.fetch_rows(query)] == []


_BEYOND_DELIVERED = """
SELECT shipment_id, line_no, units, quantity
FROM (SELECT shipment_id, line_no,
             sum(CASE WHEN status = 'resolved' AND items_back THEN received ELSE quantity END) AS units
      FROM case_lines JOIN cases USING (case_id) WHERE status NOT IN ('declined', 'cancelled')
      GROUP BY shipment_id, line_no) AS used
JOIN shipment_lines USING (shipment_id, line_no) WHERE units > quantity
"""
_WITHOUT_JOB = """
SELECT case_id, status, waits_for FROM cases FULL JOIN jobs ON subject = case_id AND queue = 'cases'
WHERE (subject IS NULL) <> (ended_at IS NOT NULL) AND (case_id IS NOT NULL OR queue = 'cases')
"""
_BROKEN_STORY = """
SELECT case_id, version FROM cases
WHERE version <> (SELECT count(*) FROM case_events WHERE case_events.case_id = cases.case_id)
"""


def open_case_shop(ship: ShippingShop, **settings: Any) -> CaseShop:
    """Open cases over a shop, with these settings of the section `aftersales`."""
    shop, policy = ship.shop, AftersalesSettings(**settings)
    decisions = CaseDecisions(shop.ids, policy)
    zone = ZoneInfo("Asia/Shanghai")
    cases = Aftersales(shop.db, shop.clock, shop.ids, policy, zone, shop.redis)
    replacements = ReplacementOrders(shop.db, shop.redis, shop.clock)
    exchanges = CaseExchanges(shop.db, shop.clock, shop.ids, replacements, policy)
    kept_units = KeptUnitCases(shop.db, shop.clock, cases.requests, decisions, zone)
    retry_policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=1, rows_per_claim=100)
    return CaseShop(
        ship=ship,
        requests=cases.requests,
        actions=cases.actions,
        cases=cases,
        jobs=CaseJobs(shop.db, shop.clock, decisions, policy, retry_policy, 5, exchanges, kept_units),
    )
