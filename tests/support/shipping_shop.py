"""Orders that are to be sent, and carriers that do what a test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast
from uuid import UUID

import msgspec

from commerce.catalog.model import ProductInput
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.fulfilment_jobs import FulfilmentJobs, Job
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.rates.service import Rates
from commerce.shipping.carrier_port import (
    BookingConfirmation,
    BookingRequest,
    CancelOutcome,
    Carrier,
    CarrierRegistry,
    TrackingEvent,
)
from commerce.shipping.model import Shipment, ShipmentStatus, WorklistName
from commerce.shipping.service import Shipping
from commerce.shipping.shipment_status import TrackingResult
from commerce.shipping.store import read_shipment
from config.settings import Settings
from ops.services import CliServices
from tests.support.sales import ADDRESS, eventually

_numbers = count(1)
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
"""SKU → warehouse, shelf, grams, length of each side in mm."""
PRICE = 100


@dataclass
class FakeCarrier:
    """A carrier inside the test: it books what is asked once for each booking, or does what `says` says next."""

    name: str
    accepts_bookings: bool = True
    is_external: bool = True
    needs_subscription: bool = False
    says: list[Exception | str] = field(default_factory=list)
    known: dict[UUID, str] = field(default_factory=dict)
    asked: Counter[UUID] = field(default_factory=Counter)
    gone: set[UUID] = field(default_factory=set)
    handed_over: set[UUID] = field(default_factory=set)
    followed: list[str] = field(default_factory=list)
    tells: dict[str, list[TrackingEvent]] = field(default_factory=dict)
    cancels: int = 0
    waits: asyncio.Event | None = None
    parcels: list[BookingRequest] = field(default_factory=list)

    @property
    def system(self) -> str:
        return self.name

    def _said(self) -> None:
        said = self.says.pop(0) if self.says else None
        if isinstance(said, Exception):
            raise said

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        self.asked[parcel.booking_id] += 1
        self.parcels.append(parcel)
        said = self.says.pop(0) if self.says else None
        number = ""
        if not isinstance(said, Exception):
            number = self.known.setdefault(parcel.booking_id, f"{self.name}-{next(_numbers):06}")
        if self.waits is not None:
            await self.waits.wait()
        if isinstance(said, Exception):
            raise said
        if said == "lost":
            raise ExternalOutcomeUnknown("the answer got lost")
        return BookingConfirmation(number, "571-A")

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        number = self.known.get(booking_id)
        return BookingConfirmation(number) if number else None

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        self._said()
        self.cancels += 1
        if booking_id not in self.known:
            return "absent"
        if booking_id in self.handed_over:
            return "too_late"
        self.gone.add(booking_id)
        if self.waits is not None:
            await self.waits.wait()
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        self._said()
        self.followed.append(tracking_no)

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        self._said()
        return self.tells.get(tracking_no, [])

    @property
    def standing(self) -> set[UUID]:
        """Bookings that it will come for."""
        return self.known.keys() - self.gone


def refusal(code: str = "no_service") -> ExternalRefusal:
    return ExternalRefusal(code, "not there")


@dataclass
class ShippingShop:
    """Shipping over the test's database, with jobs that the test works off by itself."""

    shop: CliServices
    carriers: dict[str, FakeCarrier]
    jobs: FulfilmentJobs
    desk: Fulfilment
    shipping: Shipping
    rates: Rates
    down: list[str] = field(default_factory=list)

    async def rows(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)

    async def order(
        self,
        *lines: tuple[str, int, int],
        ship_to: Sequence[Mapping[str, str]] = (ADDRESS,),
        cod: int = 0,
        user: str = "user",
        paid_at: datetime | None = None,
    ) -> UUID:
        """An order of (sku, units, address) that is paid, or paid on delivery for a part; each unit costs `PRICE`."""
        lines = lines or (("a", 1, 0),)
        order_id, now = self.shop.ids.new(), datetime.now(UTC)
        total = PRICE * sum(units for _, units, _ in lines)
        async with self.shop.db.transaction() as connection:
            await connection.execute(
                "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
                "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) "
                "VALUES ($1, $2, $3, $4, 'sale', 1, 'CNY', $5, $6, '[]', $7, 0, $7, $8)",
                *(order_id, user, str(order_id), b"d" * 16, total, msgspec.json.encode(list(ship_to)).decode()),
                *(now - timedelta(seconds=1), now + timedelta(hours=1)),
            )
            for number, (sku, units, address) in enumerate(lines):
                await connection.execute(
                    "INSERT INTO order_lines VALUES ($1, $2, $3, $4, $5, $6)",
                    *(order_id, number, address, sku, units, PRICE),
                )
            await self._paid(connection, order_id, user, total, cod, now)
            status = OrderStatus.CONFIRMED if cod else OrderStatus.PAID
            await orders.advance_status(connection, order_id, OrderStatus.AWAITING_PAYMENT, status, now, "test", "paid")
            if paid_at is not None:
                await connection.execute("UPDATE fulfilments SET paid_at = $2 WHERE order_id = $1", order_id, paid_at)
        return order_id

    async def _paid(self, connection: Any, order_id: UUID, user: str, total: int, cod: int, now: datetime) -> None:
        parts: list[tuple[str, int, str, datetime | None]] = []
        parts += [("balance", total - cod, "captured", now)] if total > cod else []
        parts += [("cod", cod, "authorised", None)] if cod else []
        for part, (method, amount, status, captured_at) in enumerate(parts):
            await connection.execute(
                "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, "
                "currency, status, created_at, expires_at, captured_at, due_at) "
                "VALUES ($1, $2, $3, 1, $4, $5, 'none', $6, 'CNY', $7, $8, $9, $10, $8)",
                *(self.shop.ids.new(), order_id, user, part, method, amount, status, now),
                *(now + timedelta(hours=1), captured_at),
            )
            if captured_at:
                await connection.execute(
                    "INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES "
                    "($1, $2, $3, $4, 'CNY', $5), ($1, 'orders', $3, -$4, 'CNY', $5)",
                    *(f"test {order_id}", f"credit:{user}", order_id, amount, now),
                )

    async def refund_all(self, order_id: UUID) -> None:
        """All of its money is on its way back."""
        async with self.shop.db.connection() as connection:
            await connection.execute(
                "INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, "
                "actor, created_at, due_at) SELECT $2, payment_id, order_id, 'k', amount_minor, currency, 'r', 'test', "
                "now(), now() + interval '1 day' FROM payments WHERE order_id = $1 AND status = 'captured'",
                *(order_id, self.shop.ids.new()),
            )

    async def due(self) -> None:
        """Everything that waits for its time is due now."""
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE shipments SET due_at = now() - interval '1 second'")
            await connection.execute(
                "UPDATE fulfilments SET due_at = now() - interval '1 second' WHERE due_at IS NOT NULL"
            )

    async def lease_over(self) -> None:
        """What was asked of carriers was asked so long ago that it is there, or never will be."""
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE bookings SET requested_at = requested_at - interval '1 hour'")
        await self.due()

    async def claimed(self, order_id: UUID | None = None) -> Job:
        """The one job that is due, of the order if it is named."""
        jobs = await self.jobs.claim(100, self.down, self.down)
        [job] = [job for job in jobs if order_id in (None, job.order_id)]
        return job

    async def work(self, rounds: int = 30) -> list[str]:
        """Do what is due, one after the other, till nothing is; a word for each."""
        words: list[str] = []
        for _ in range(rounds):
            claimed = await self.jobs.claim(100, self.down, self.down)
            if not claimed:
                return words
            words += [await self.one(job) for job in claimed]
        raise AssertionError(f"there is always something due: {words[-10:]}")

    async def one(self, job: Job) -> str:
        try:
            return await self.jobs.work(job)
        except ExternalOutcomeUnknown:
            return "unclear"

    async def booking(self, name: str) -> tuple[UUID, asyncio.Task[str]]:
        """An order whose parcel the carrier has booked without answering yet; it does when its `waits` is set."""
        carrier = self.carriers[name]
        carrier.waits = asyncio.Event()
        order_id = await self.order()
        assert await self.one(await self.claimed()) == "planned"
        task = asyncio.create_task(self.one(await self.claimed()))

        async def asked() -> bool:
            return bool(carrier.known)

        await eventually(asked)
        return order_id, task

    async def parcels(self, order_id: UUID) -> list[Shipment]:
        rows = await self.rows("SELECT * FROM shipments WHERE order_id = $1 ORDER BY parcel_no", order_id)
        return [read_shipment(row) for row in rows]

    async def parcel(self, shipment_id: UUID) -> Shipment:
        [row] = await self.rows("SELECT * FROM shipments WHERE shipment_id = $1", shipment_id)
        return read_shipment(row)

    async def status(self, order_id: UUID) -> str:
        return str(await self.value("SELECT status FROM orders WHERE order_id = $1", order_id))

    async def sent(self, *lines: tuple[str, int, int], **more: Any) -> tuple[UUID, list[Shipment]]:
        """An order whose parcels are booked where the driver books."""
        order_id = await self.order(*lines, **more)
        await self.work()
        return order_id, await self.parcels(order_id)

    async def told(self, shipment_id: UUID) -> list[str]:
        """What is written down about a parcel, in the order in which it became known."""
        query = "SELECT text FROM shipment_events WHERE shipment_id = $1 ORDER BY seq"
        return [row["text"] for row in await self.rows(query, shipment_id)]

    async def on(self, which: WorklistName) -> set[UUID]:
        """Which parcels are on a list of the desk; as many as it counts."""
        page = await self.desk.list_worklist(which, None, None, 100)
        if which != "all":
            assert (await self.desk.count_worklists())[which] == len(page.items), which
        return {item.shipment.shipment_id for item in page.items}

    async def check(self) -> None:
        """P7: goods are counted as parcels hold them, histories lead to where parcels are, nobody comes twice."""
        for query in (_MISCOUNTED, _ASTRAY, _GAPS, _STANDING):
            assert [tuple(row) for row in await self.rows(query)] == []
        of = {row["booking_id"]: row for row in await self.rows("SELECT * FROM bookings")}
        coming = [of[id_] for carrier in self.carriers.values() for id_ in carrier.standing]
        assert all(one["outcome"] in ("asked", "booked") for one in coming), coming
        assert len({one["shipment_id"] for one in coming}) == len(coming)

    async def hear(self, shipment_id: UUID, *news: TrackingEvent) -> TrackingResult:
        async with self.shop.db.transaction() as connection:
            return await self.shipping.apply_tracking_events(
                connection, shipment_id, news, "push", "test", datetime.now(UTC)
            )


_MISCOUNTED = """
SELECT * FROM (
    SELECT order_id, line_no, address_no, ordered, planned, shipped, delivered FROM fulfilment_lines
) AS counted FULL JOIN (
    SELECT order_lines.order_id, line_no, address_no, order_lines.quantity AS ordered,
           coalesce(sum(held.quantity) FILTER (WHERE NOT gone), 0) AS planned,
           coalesce(sum(held.quantity) FILTER (WHERE NOT gone AND status NOT IN ('planned', 'booked')), 0) AS shipped,
           coalesce(sum(held.quantity) FILTER (WHERE status = 'delivered'), 0) AS delivered
    FROM order_lines JOIN fulfilment_lines USING (order_id, line_no, address_no) LEFT JOIN (
        SELECT shipment_lines.*, status, status IN ('cancelled', 'lost', 'returned_to_sender') AS gone
        FROM shipment_lines JOIN shipments USING (shipment_id)
    ) AS held USING (order_id, line_no, address_no)
    GROUP BY order_lines.order_id, line_no, address_no, order_lines.quantity
) AS found USING (order_id, line_no, address_no)
WHERE (counted.ordered, counted.planned, counted.shipped, counted.delivered)
      IS DISTINCT FROM (found.ordered, found.planned, found.shipped, found.delivered)
"""
_ASTRAY = """
SELECT shipment_id, status, steps FROM (
    SELECT shipment_id, status, array_agg(from_status ORDER BY seq) || status AS begun,
           ARRAY['planned'] || array_agg(to_status ORDER BY seq) AS ended, array_agg(to_status ORDER BY seq) AS steps
    FROM shipments JOIN shipment_events USING (shipment_id) WHERE to_status IS NOT NULL GROUP BY shipment_id
) AS found WHERE begun <> ended
UNION ALL SELECT shipment_id, status, NULL FROM shipments WHERE status <> 'planned'
AND NOT EXISTS (SELECT FROM shipment_events AS event WHERE event.shipment_id = shipments.shipment_id)
"""
_GAPS = """
SELECT order_id, event_seq FROM fulfilments WHERE event_seq <> (
    SELECT count(*) FROM shipment_events WHERE shipment_events.order_id = fulfilments.order_id AND seq <= event_seq)
"""
_STANDING = """
SELECT shipments.shipment_id, shipments.booking_id, bookings.booking_id FROM shipments LEFT JOIN bookings
ON bookings.shipment_id = shipments.shipment_id AND outcome IN ('requested', 'booked')
WHERE shipments.booking_id IS DISTINCT FROM bookings.booking_id
"""


def tracking_event(
    state: str | None, minutes: float = 0, *, code: str = "", text: str = "", unknown: bool = False
) -> TrackingEvent:
    """Something that happened so many minutes from now."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes)
    known = ShipmentStatus(state) if state else None
    return TrackingEvent(at, code or (state or "note"), text or f"it is {state or 'where it was'}", known, unknown)


async def add_products(shop: CliServices) -> None:
    """Products with two warehouses."""
    await shop.catalog.put_many([(sku, ProductInput(f"thing {sku}", PRICE, "CNY")) for sku in PRODUCT_LOGISTICS])
    async with shop.db.connection() as connection:
        for id_, place in (("hz", ADDRESS), ("sh", SHANGHAI)):
            await connection.execute(
                "INSERT INTO warehouses VALUES ($1, $2, $3, 30.25, 120.16)",
                *(id_, f"Warehouse {id_}", msgspec.json.encode(place).decode()),
            )
        await connection.executemany(
            "INSERT INTO product_logistics VALUES ($1, $2, $3, $4, $5, $5, $5)",
            [(sku, *about) for sku, about in PRODUCT_LOGISTICS.items()],
        )


@asynccontextmanager
async def open_shipping_shop(
    shop: CliServices, settings: Settings, *, rates: str = RATES, attempts: int = 5, lease_s: int = 1
) -> AsyncIterator[ShippingShop]:
    """With the carriers of `RATES`: quick and cheap are booked by the driver, byhand by the desk."""
    await add_products(shop)
    table = Rates(shop.db, shop.clock)
    if rates:
        await table.import_table(rates.splitlines(keepends=True), "test", "test")
    by_name = {
        "quick": FakeCarrier("quick"),
        "cheap": FakeCarrier("cheap"),
        "byhand": FakeCarrier("byhand", accepts_bookings=False, needs_subscription=True),
    }
    carriers = CarrierRegistry(cast("dict[str, Carrier]", by_name), {})
    rules, ids = settings.shipping, IdGenerator(shop.clock)
    assigning = CarrierAssignment(table, carriers, rules)
    policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=lease_s, rows_per_claim=100)
    jobs = FulfilmentJobs(shop.db, shop.clock, ids, policy, attempts, carriers, assigning, rules)
    desk = Fulfilment(shop.db, shop.clock, ids, assigning, carriers, rules)
    yield ShippingShop(shop, by_name, jobs, desk, Shipping(shop.db, shop.clock, rules), table)
