"""A shop with paid orders to ship, and carriers that answer as a test prescribes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec

from commerce.audit import store as audit_store
from commerce.cancellations.cancellation_jobs import CancellationJobs
from commerce.cancellations.service import Cancellations
from commerce.catalog.model import VariantInput
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.fulfilment_jobs import FulfilmentJobs
from commerce.fulfilment.service import Fulfilment
from commerce.jobs.model import Job, JobKey
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.orders import store as orders
from commerce.orders.model import CANCELLATIONS, OrderStatus
from commerce.rates.service import Rates
from commerce.shipping.carrier_port import (
    Carrier,
    CarrierRegistry,
    TrackingEvent,
)
from commerce.shipping.model import Shipment, ShipmentJob, ShipmentStatus, WorklistName
from commerce.shipping.service import Shipping
from commerce.shipping.shipment_tasks import SHIPMENTS
from commerce.shipping.store import read_shipment
from commerce.shipping.tracking import TrackingResult
from config.settings import Settings
from ops.services import CliServices
from tests.support.fake_carrier import FakeCarrier
from tests.support.logistics import put_logistics
from tests.support.sales import ADDRESS, eventually

SHANGHAI = {**ADDRESS, "province": "Shanghai", "city": "Shanghai", "district": "Pudong", "line": "Century Avenue 1"}
RATES = """carrier,region,from_g,to_g,price,currency,days,cod
quick,CN,0,1000,20.00,CNY,1,yes
quick,CN,1000,30000,40.00,CNY,1,yes
cheap,CN,0,30000,10.00,CNY,3,yes
byhand,CN/Shanghai,0,30000,5.00,CNY,2,no
"""
PRODUCT_LOGISTICS: Mapping[str, tuple[str, str, int, int]] = {
    "a": ("hz", "A-01", 500, 100),
    "b": ("hz", "B-07", 9_000, 300),
    "c": ("sh", "C-02", 200, 80),
}
"""SKU → warehouse, shelf, grams, length of each side in mm"""
PRICE = 100


@dataclass
class ShippingShop:
    """Shipping over the test's database. Jobs run only when the test works on them."""

    shop: CliServices
    carriers: dict[str, FakeCarrier]
    jobs: FulfilmentJobs
    cancellation_jobs: CancellationJobs
    fulfilment: Fulfilment
    cancellations: Cancellations
    shipping: Shipping
    rates: Rates
    unavailable_systems: list[str] = field(default_factory=list)
    unchecked_orders: set[UUID] = field(default_factory=set)
    """orders that a test has broken by hand"""

    @property
    def queues(self) -> tuple[JobQueue, ...]:
        return self.jobs.shipments, self.jobs.orders, self.cancellation_jobs.queue

    async def fetch_rows(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def fetch_value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)

    async def add_order(
        self,
        *lines: tuple[str, int, int],
        ship_to: Sequence[Mapping[str, str]] = (ADDRESS,),
        cod: int = 0,
        user: str = "user",
        paid_at: datetime | None = None,
    ) -> UUID:
        """Insert an order of (sku, units, address no); each unit costs `PRICE`.

        `cod` minor units are due on delivery, the rest is paid."""
        lines = lines or (("a", 1, 0),)
        # In whole milliseconds, as workers count: with microseconds the job might not be due to one that looks at once.
        order_id, now = self.shop.ids.new(), from_ms(self.shop.clock.now_ms())
        total = PRICE * sum(units for _, units, _ in lines)
        async with self.shop.db.transaction() as connection:
            await connection.execute(
                "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
                "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) "
                "VALUES ($1, $2, $3, $4, 'sale', 1, 'CNY', $5, $6, '[]', $7, 0, $7, $8)",
                *(order_id, user, str(order_id), b"d" * 16, total, msgspec.json.encode(list(ship_to)).decode()),
                *(now - timedelta(seconds=1), now + timedelta(hours=1)),
            )
            for line_no, (sku, units, address_no) in enumerate(lines):
                await connection.execute(
                    "INSERT INTO order_lines VALUES ($1, $2, $3, $4, $5, $6)",
                    *(order_id, line_no, address_no, sku, units, PRICE),
                )
            await self._insert_payments(connection, order_id, user, total, cod, now)
            status = OrderStatus.CONFIRMED if cod else OrderStatus.PAID
            await orders.advance_status(connection, order_id, OrderStatus.AWAITING_PAYMENT, status, now, "test", "paid")
            if paid_at is not None:
                await connection.execute("UPDATE fulfilments SET paid_at = $2 WHERE order_id = $1", order_id, paid_at)
        return order_id

    async def _insert_payments(
        self, connection: Any, order_id: UUID, user: str, total: int, cod: int, now: datetime
    ) -> None:
        tenders: list[tuple[str, int, str, datetime | None]] = []
        tenders += [("balance", total - cod, "captured", now)] if total > cod else []
        tenders += [("cod", cod, "authorised", None)] if cod else []
        for tender_no, (method, amount, status, captured_at) in enumerate(tenders):
            payment_id = self.shop.ids.new()
            await connection.execute(
                "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, "
                "amount_minor, currency, status, created_at, expires_at, captured_at) "
                "VALUES ($1, $2, $3, 1, $4, $5, 'none', $6, 'CNY', $7, $8, $9, $10)",
                *(payment_id, order_id, user, tender_no, method, amount, status, now),
                *(now + timedelta(hours=1), captured_at),
            )
            if captured_at:
                await connection.execute(
                    "INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES "
                    "($1, $2, $3, $4, 'CNY', $5), ($1, 'orders', $3, -$4, 'CNY', $5)",
                    *(f"capture {payment_id}", f"credit:{user}", order_id, amount, now),
                )

    async def refund_all(self, order_id: UUID) -> None:
        """Insert pending refunds of all captured payments of an order."""
        async with self.shop.db.connection() as connection:
            await connection.execute(
                "WITH inserted AS (INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, "
                "currency, reason, actor, created_at) SELECT $2, payment_id, order_id, 'k', amount_minor, currency, "
                "'r', 'test', $3 FROM payments WHERE order_id = $1 AND status = 'captured' RETURNING refund_id) "
                "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at) "
                "SELECT refund_id, 'refunds', 'refund.request', 'internal', $3::timestamptz + interval '1 day', $3 "
                "FROM inserted",
                *(order_id, self.shop.ids.new(), from_ms(self.shop.clock.now_ms())),
            )

    async def make_all_due(self) -> None:
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE jobs SET due_at = now() - interval '1 second'")

    async def expire_booking_requests(self) -> None:
        """Date all booking requests back, so that none can still be on its way to a carrier."""
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE bookings SET requested_at = requested_at - interval '1 hour'")
        await self.make_all_due()

    async def claim_one(self, order_id: UUID | None = None) -> Job:
        """Claim all due jobs and return the only one, or the only one of an order."""
        jobs = await self.claim()
        if order_id is not None:
            subjects = {order_id, *(shipment.shipment_id for shipment in await self.list_shipments(order_id))}
            jobs = [job for job in jobs if job.subject in subjects]
        [job] = jobs
        return job

    async def claim(self, count: int = 100) -> list[Job]:
        """Claim due jobs that call no unavailable system, up to so many of each queue."""
        await self.jobs.reassign(self.unavailable_systems)
        room = dict.fromkeys(self.unavailable_systems, 0)
        return [job for queue in self.queues for jobs in await queue.claim(count, room) for job in jobs]

    async def work_until_idle(self, rounds: int = 30) -> list[str]:
        """Work on due jobs, one after the other, until none is due. Returns their results.

        Those of orders that have no unit to cancel are left out."""
        results: list[str] = []
        for _ in range(rounds):
            jobs = await self.claim()
            if not jobs:
                return results
            for job in jobs:
                result = await self.work_on(job)
                if (job.queue, result) != (CANCELLATIONS, "unchanged"):
                    results.append(result)
        raise AssertionError(f"jobs are always due: {results[-10:]}")

    async def work_on(self, job: Job) -> str:
        [queue] = [queue for queue in self.queues if queue.name == job.queue]
        [result] = await queue.work([job])
        return result.word

    async def start_booking(self, name: str) -> tuple[UUID, asyncio.Task[str]]:
        """Start to book a new order's shipment. The carrier has booked it and replies once its `gate` is set."""
        carrier = self.carriers[name]
        carrier.gate = asyncio.Event()
        order_id = await self.add_order()
        assert await self.work_on(await self.claim_one()) == "planned"
        task = asyncio.create_task(self.work_on(await self.claim_one()))

        async def is_booked() -> bool:
            return bool(carrier.bookings)

        await eventually(is_booked)
        return order_id, task

    async def list_shipments(self, order_id: UUID) -> list[Shipment]:
        rows = await self.fetch_rows("SELECT * FROM shipments WHERE order_id = $1 ORDER BY parcel_no", order_id)
        return [read_shipment(row) for row in rows]

    async def get_shipment(self, shipment_id: UUID) -> Shipment:
        [row] = await self.fetch_rows("SELECT * FROM shipments WHERE shipment_id = $1", shipment_id)
        return read_shipment(row)

    async def get_job(self, shipment_id: UUID) -> ShipmentJob:
        """Return what is to be done next with a shipment, which must not be nothing."""
        job = (await self.fulfilment.get(shipment_id)).job
        assert job is not None
        return job

    async def retry(self, shipment_id: UUID) -> None:
        """Retry a parked job, as staff do."""
        await self.shop.jobs.retry_one(JobKey(SHIPMENTS, shipment_id), "dan")

    async def find_task(self, shipment_id: UUID) -> str | None:
        """Return the kind of a shipment's job, or None if there is nothing to do."""
        job = (await self.fulfilment.get(shipment_id)).job
        return job.kind if job else None

    async def order_status(self, order_id: UUID) -> str:
        return str(await self.fetch_value("SELECT status FROM orders WHERE order_id = $1", order_id))

    async def add_booked_order(self, *lines: tuple[str, int, int], **options: Any) -> tuple[UUID, list[Shipment]]:
        """Insert an order and work until its shipments are planned, and booked if workers can."""
        order_id = await self.add_order(*lines, **options)
        await self.work_until_idle()
        return order_id, await self.list_shipments(order_id)

    async def list_event_texts(self, shipment_id: UUID) -> list[str]:
        """List the texts of a shipment's events in the order in which they were stored."""
        query = "SELECT text FROM shipment_events WHERE shipment_id = $1 ORDER BY seq"
        return [row["text"] for row in await self.fetch_rows(query, shipment_id)]

    async def list_worklist(self, worklist: WorklistName) -> set[UUID]:
        """Return the shipments on a worklist, after checking that it counts as many."""
        page = await self.fulfilment.list_worklist(worklist, None, None, 100)
        if worklist != "all":
            assert (await self.fulfilment.count_worklists())[worklist] == len(page.items), worklist
        return {item.shipment.shipment_id for item in page.items}

    async def check_records(self) -> None:
        """Check P7: units match shipments, histories match statuses, bookings are unique, orders end."""
        async with audit_store.open_order_snapshot(self.shop.db) as connection:
            rows = await connection.fetch("SELECT order_id FROM orders")
            ids = [row["order_id"] for row in rows if row["order_id"] not in self.unchecked_orders]
            for name in _ORDER_CHECKS:
                assert await audit_store.list_violations(connection, name, ids) == [], name
        for query in (_MISCOUNTED_LINES, _BROKEN_HISTORIES, _EVENT_GAPS, _WRONG_CURRENT_BOOKINGS):
            assert [tuple(row) for row in await self.fetch_rows(query)] == []
        by_id = {row["booking_id"]: row for row in await self.fetch_rows("SELECT * FROM bookings")}
        returns = {row["booking_id"]: row["must_be_cancelled"] for row in await self.fetch_rows(_RETURN_BOOKINGS)}
        current_ids = {id_ for carrier in self.carriers.values() for id_ in carrier.current_bookings}
        assert not any(returns[id_] for id_ in current_ids & returns.keys())
        current = [by_id[id_] for id_ in current_ids - returns.keys()]
        assert all(booking["outcome"] in ("requested", "booked") for booking in current), current
        assert len({booking["shipment_id"] for booking in current}) == len(current)

    async def apply_events(self, shipment_id: UUID, *events: TrackingEvent) -> TrackingResult:
        async with self.shop.db.transaction() as connection:
            return await self.shipping.apply_tracking_events(
                connection, shipment_id, events, "webhook", "test", datetime.now(UTC)
            )


_ORDER_CHECKS = (
    "fulfilment_counts_out_of_order",
    "fulfilment_and_cancellations",
    "fulfilment_and_shipments",
    "shipped_without_counts",
    "cancelled_without_release",
    "released_other_units",
    "orders_without_end",
    "broken_histories",
)
_MISCOUNTED_LINES = """
SELECT * FROM (
    SELECT order_id, line_no, address_no, ordered, planned, shipped, delivered FROM fulfilment_lines
) AS counted FULL JOIN (
    SELECT order_lines.order_id, line_no, address_no, order_lines.quantity AS ordered,
           coalesce(sum(contents.quantity) FILTER (WHERE NOT is_gone), 0) AS planned,
           coalesce(sum(contents.quantity) FILTER (WHERE NOT is_gone AND status NOT IN ('planned', 'booked')), 0)
               AS shipped,
           coalesce(sum(contents.quantity) FILTER (WHERE status = 'delivered'), 0) AS delivered
    FROM order_lines JOIN fulfilment_lines USING (order_id, line_no, address_no) LEFT JOIN (
        SELECT shipment_lines.*, status, status IN ('cancelled', 'lost', 'returned_to_sender') AS is_gone
        FROM shipment_lines JOIN shipments USING (shipment_id)
    ) AS contents USING (order_id, line_no, address_no)
    GROUP BY order_lines.order_id, line_no, address_no, order_lines.quantity
) AS expected USING (order_id, line_no, address_no)
WHERE (counted.ordered, counted.planned, counted.shipped, counted.delivered)
      IS DISTINCT FROM (expected.ordered, expected.planned, expected.shipped, expected.delivered)
"""
_BROKEN_HISTORIES = """
SELECT shipment_id, status, steps FROM (
    SELECT shipment_id, status, array_agg(from_status ORDER BY seq) || status AS begun,
           ARRAY['planned'] || array_agg(to_status ORDER BY seq) AS ended, array_agg(to_status ORDER BY seq) AS steps
    FROM shipments JOIN shipment_events USING (shipment_id) WHERE to_status IS NOT NULL GROUP BY shipment_id
) AS history WHERE begun <> ended
UNION ALL SELECT shipment_id, status, NULL FROM shipments WHERE status <> 'planned'
AND NOT EXISTS (SELECT FROM shipment_events AS event WHERE event.shipment_id = shipments.shipment_id)
"""
_EVENT_GAPS = """
SELECT order_id, event_seq FROM fulfilments WHERE event_seq <> (
    SELECT count(*) FROM shipment_events WHERE shipment_events.order_id = fulfilments.order_id AND seq <= event_seq)
"""
_RETURN_BOOKINGS = """
SELECT booking_id, status = 'cancelled' AND NOT EXISTS (
    SELECT FROM return_shipment_events AS event
    WHERE event.return_shipment_id = returned.return_shipment_id AND to_status = 'picked_up') AS must_be_cancelled
FROM return_shipments AS returned WHERE booking_id IS NOT NULL
"""
_WRONG_CURRENT_BOOKINGS = """
SELECT shipments.shipment_id, shipments.booking_id, bookings.booking_id FROM shipments LEFT JOIN bookings
ON bookings.shipment_id = shipments.shipment_id AND outcome IN ('requested', 'booked')
WHERE shipments.booking_id IS DISTINCT FROM bookings.booking_id
"""


def tracking_event(
    status: str | None, minutes: float = 0, *, code: str = "", text: str = "", is_unknown_code: bool = False
) -> TrackingEvent:
    """Make an event so many minutes from now."""
    return TrackingEvent(
        at=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes),
        code=code or (status or "note"),
        text=text or f"it is {status or 'as before'}",
        status=ShipmentStatus(status) if status else None,
        is_unknown_code=is_unknown_code,
    )


async def add_products(shop: CliServices) -> None:
    """Insert the products of `PRODUCT_LOGISTICS` and their two warehouses."""
    await shop.catalog.put_many([(sku, VariantInput(f"thing {sku}", PRICE, "CNY")) for sku in PRODUCT_LOGISTICS])
    async with shop.db.connection() as connection:
        for id_, address in (("hz", ADDRESS), ("sh", SHANGHAI)):
            await connection.execute(
                "INSERT INTO warehouses VALUES ($1, $2, $3, 30.25, 120.16)",
                *(id_, f"Warehouse {id_}", msgspec.json.encode(address).decode()),
            )
        for sku, logistics in PRODUCT_LOGISTICS.items():
            await put_logistics(connection, sku, *logistics)


@asynccontextmanager
async def open_shipping_shop(
    shop: CliServices, settings: Settings, *, rates: str = RATES, max_attempts: int = 5, lease_s: int = 1
) -> AsyncIterator[ShippingShop]:
    """Open a shop with the carriers of `RATES`. Workers book quick and cheap, staff book byhand."""
    await add_products(shop)
    rate_tables = Rates(shop.db, shop.clock)
    if rates:
        await rate_tables.import_table(rates.splitlines(keepends=True), "test", "test")
    by_name = {
        "quick": FakeCarrier("quick"),
        "cheap": FakeCarrier("cheap"),
        "byhand": FakeCarrier("byhand", accepts_bookings=False, needs_subscription=True),
    }
    carriers = CarrierRegistry(cast("dict[str, Carrier]", by_name), {})
    policy, ids = settings.shipping, IdGenerator(shop.clock)
    assignment = CarrierAssignment(rate_tables, carriers, policy)
    retry_policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=lease_s, rows_per_claim=100)
    yield ShippingShop(
        shop=shop,
        carriers=by_name,
        jobs=FulfilmentJobs(shop.db, shop.clock, ids, retry_policy, max_attempts, carriers, assignment, policy),
        cancellation_jobs=CancellationJobs(
            *(shop.db, shop.clock, ids, retry_policy, max_attempts, carriers, policy, settings.aftersales)
        ),
        fulfilment=Fulfilment(shop.db, shop.clock, ids, assignment, carriers, policy),
        cancellations=Cancellations(shop.db, shop.clock, ids, shop.orders, carriers, policy, settings.aftersales),
        shipping=Shipping(shop.db, shop.clock, policy),
        rates=rate_tables,
    )
