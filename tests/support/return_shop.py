"""A shop with delivered orders, approved cases, and carriers that collect their return shipments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import msgspec

from commerce.aftersales import store as cases
from commerce.aftersales.case_inspections import CaseInspections
from commerce.aftersales.case_receipts import CaseReceipts
from commerce.aftersales.case_returns import CaseReturns
from commerce.aftersales.model import CaseLine, CaseSummary
from commerce.aftersales.receipt_model import InspectedUnits, InspectionInput, ReceiptInput, ReceiptResult
from commerce.jobs.model import Job
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection
from commerce.rates.service import Rates
from commerce.return_shipments import store
from commerce.return_shipments.carrier_selection import ReturnCarriers
from commerce.return_shipments.model import (
    NewReturnShipment,
    Payer,
    ReturnContent,
    ReturnShipment,
    ReturnStatus,
    TrackingInput,
)
from commerce.return_shipments.return_jobs import ReturnShipmentJobs
from commerce.return_shipments.return_status import CaseHook, lock_return
from commerce.return_shipments.service import ReturnShipments
from commerce.return_shipments.webhook_updates import ReturnShipmentUpdates
from commerce.shipping.carrier_port import Carrier, CarrierRegistry
from commerce.shipping.service import Shipping
from config.settings import Settings
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event

Counted = tuple[UUID, ReturnStatus]


@dataclass
class ReturnShop:
    """Return shipments over the test's database. Jobs run only when the test works on them."""

    ship: ShippingShop
    jobs: ReturnShipmentJobs
    shipments: ReturnShipments
    shipping: Shipping
    returns: CaseReturns
    receipts: CaseReceipts
    inspections: CaseInspections
    steps: list[Counted] = field(default_factory=list)
    """steps that cases would follow"""

    async def deliver_order(self, *lines: tuple[str, int, int], user: str = "user") -> UUID:
        """Insert an order and deliver all its shipments."""
        order_id, shipments = await self.ship.add_booked_order(*(lines or (("a", 2, 0),)), user=user)
        for shipment in shipments:
            await self.ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
        return order_id

    async def add_case(
        self, order_id: UUID, units: Mapping[int, int] | None = None, *, status: str = "approved", user: str = "user"
    ) -> UUID:
        """Insert a case of units by order line, by default of all units."""
        case_id, now = self.ship.shop.ids.new(), from_ms(self.ship.shop.clock.now_ms())
        async with self.ship.shop.db.transaction() as connection:
            await connection.execute(
                "INSERT INTO cases (case_id, order_id, user_id, kind, items_back, status, items_state, money_state, "
                "is_opened, reason_code, customer_text, policy, freight_payer, currency, amount_minor, freight_minor, "
                "fee_minor, waits_for, due_at, idempotency_key, body_digest, created_by, created_at, decided_at) "
                "VALUES ($1, $2, $3, 'return', true, $4, 'expected', 'fixed', false, 'unwanted', '', '{}', 'shop', "
                "'CNY', 0, 0, 0, 'customer', $5, $6, $7, 'test', $8, $8)",
                *(case_id, order_id, user, status, now + timedelta(days=7), str(case_id), b"d" * 32, now),
            )
            await connection.execute(
                "INSERT INTO case_lines (case_id, case_line_no, order_id, line_no, address_no, shipment_id, sku, "
                "quantity, amount_minor) SELECT $1, row_number() OVER (ORDER BY line_no, shipment_id) - 1, order_id, "
                "line_no, address_no, shipment_id, sku, coalesce(($3::jsonb ->> line_no::text)::integer, quantity), "
                "$4 * coalesce(($3::jsonb ->> line_no::text)::integer, quantity) "
                "FROM shipment_lines WHERE order_id = $2 AND ($3::jsonb IS NULL OR $3::jsonb ? line_no::text)",
                *(case_id, order_id, units and msgspec.json.encode(units).decode(), PRICE),
            )
        return case_id

    async def describe(self, case_id: UUID, payer: Payer = "shop") -> NewReturnShipment:
        """Describe a shipment with all units of a case."""
        rows = await self.ship.fetch_rows(
            "SELECT order_id, user_id, case_line_no, sku, quantity "
            "FROM case_lines JOIN cases USING (case_id, order_id) WHERE case_id = $1 ORDER BY case_line_no",
            case_id,
        )
        contents = tuple(ReturnContent(row["case_line_no"], row["sku"], row["quantity"]) for row in rows)
        address = msgspec.convert(dict(ADDRESS), Address)
        value = PRICE * sum(content.quantity for content in contents)
        return NewReturnShipment(
            *(case_id, rows[0]["order_id"], rows[0]["user_id"], address, "hz", contents, value, "CNY", payer)
        )

    async def request(self, case_id: UUID, payer: Payer = "shop") -> UUID:
        """Have a carrier collect all units of a case. Returns the return shipment."""
        new = await self.describe(case_id, payer)
        async with self.ship.shop.db.transaction() as connection:
            await _lock(connection, new.order_id)
            return await self.shipments.request(connection, new, self._now(), "staff ann")

    async def set_tracking(self, case_id: UUID, carrier: str, tracking_no: str) -> UUID:
        """Record the number with which the customer sends all units of a case."""
        new = await self.describe(case_id)
        async with self.ship.shop.db.transaction() as connection:
            await _lock(connection, new.order_id)
            tracking = TrackingInput(carrier, tracking_no)
            return await self.shipments.set_tracking(connection, new, tracking, self._now(), "customer")

    async def cancel(self, return_shipment_id: UUID) -> None:
        async with self.ship.shop.db.transaction() as connection:
            shipment = await lock_return(connection, return_shipment_id)
            await self.shipments.cancel(connection, shipment, self._now(), "staff", "staff ann", "not needed")

    async def get(self, return_shipment_id: UUID) -> ReturnShipment:
        async with self.ship.shop.db.connection() as connection:
            shipment = await store.get_shipment(connection, return_shipment_id)
        assert shipment is not None
        return shipment

    # Cases.

    async def get_case(self, case_id: UUID) -> CaseSummary:
        async with self.ship.shop.db.connection() as connection:
            case = await cases.get_case(connection, case_id)
        assert case is not None
        return case

    async def list_lines(self, case_id: UUID) -> list[CaseLine]:
        async with self.ship.shop.db.connection() as connection:
            return (await cases.list_lines(connection, [case_id]))[case_id]

    async def state(self, case_id: UUID) -> tuple[str, str, str]:
        """Return the case's status, the state of its products, and who must act."""
        case = await self.get_case(case_id)
        return case.status.value, case.items_state, case.waits_for

    async def receive(self, case_id: UUID, units: dict[int, int], **fields: Any) -> ReceiptResult:
        """Receive units of a case, as staff who have just read it."""
        version = (await self.get_case(case_id)).version
        receipt = ReceiptInput(warehouse="hz", case_id=case_id, version=version, lines=units, **fields)
        return await self.receipts.receive(receipt, "staff ann")

    async def inspect(self, case_id: UUID, *results: tuple[int, int, int], nothing_more: bool = False) -> CaseSummary:
        """Inspect (resellable, damaged, rejected) units of each line, as staff who have just read the case."""
        lines = {no: InspectedUnits(resellable=a, damaged=b, rejected=c) for no, (a, b, c) in enumerate(results)}
        version = (await self.get_case(case_id)).version
        inspection = InspectionInput(version=version, lines=lines, nothing_more=nothing_more)
        return await self.inspections.inspect(case_id, inspection, "staff ann")

    # What happened.

    async def list_texts(self, return_shipment_id: UUID) -> list[str]:
        """List the texts of a return shipment's events in the order in which they were stored."""
        query = "SELECT text FROM return_shipment_events WHERE return_shipment_id = $1 ORDER BY seq"
        return [row["text"] for row in await self.ship.fetch_rows(query, return_shipment_id)]

    async def list_steps(self, return_shipment_id: UUID) -> list[str]:
        """List the statuses that a return shipment has reached."""
        query = "SELECT to_status FROM return_shipment_events WHERE return_shipment_id = $1 ORDER BY seq"
        rows = await self.ship.fetch_rows(query, return_shipment_id)
        return [row["to_status"] for row in rows if row["to_status"]]

    async def claim(self, count: int = 100) -> list[Job]:
        return [job for jobs in await self.jobs.queue.claim(count, {}) for job in jobs]

    async def work_on(self, job: Job) -> str:
        [result] = await self.jobs.queue.work([job])
        return result.word

    async def work_until_idle(self) -> list[str]:
        """Work on due jobs of return shipments until none is due. Returns their results."""
        results: list[str] = []
        for _ in range(30):
            jobs = await self.claim()
            if not jobs:
                return results
            results += [await self.work_on(job) for job in jobs]
        raise AssertionError(f"jobs are always due: {results[-10:]}")

    async def find_job(self, return_shipment_id: UUID) -> Any:
        """Return the job of a return shipment, or None."""
        rows = await self.ship.fetch_rows("SELECT * FROM jobs WHERE subject = $1", return_shipment_id)
        return rows[0] if rows else None

    def _now(self) -> Any:
        return from_ms(self.ship.shop.clock.now_ms())


async def _lock(connection: Connection, order_id: UUID) -> None:
    await connection.execute("SELECT FROM orders WHERE order_id = $1 FOR UPDATE", order_id)


@asynccontextmanager
async def open_return_shop(
    ship: ShippingShop, settings: Settings, *, on_step: CaseHook | None = None
) -> AsyncIterator[ReturnShop]:
    """Open the returns of a shop.

    Without `on_step` no case follows its shipments; `steps` lists what it would follow."""
    steps = list[Counted]()

    async def note_step(connection: Any, shipment: ReturnShipment, status: ReturnStatus, now: Any) -> None:
        steps.append((shipment.return_shipment_id, status))

    hook = on_step or note_step
    shop, policy = ship.shop, settings.shipping
    registry = CarrierRegistry(cast("dict[str, Carrier]", ship.carriers), {})
    carriers = ReturnCarriers(Rates(shop.db, shop.clock), registry, policy, shop.ids)
    retry_policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=1, rows_per_claim=100)
    yield ReturnShop(
        ship=ship,
        jobs=ReturnShipmentJobs(shop.db, shop.clock, retry_policy, 5, carriers, policy, hook),
        shipments=ReturnShipments(shop.ids, carriers, hook),
        returns=CaseReturns(shop.db, shop.clock, ReturnShipments(shop.ids, carriers, hook), settings.aftersales),
        receipts=CaseReceipts(shop.db, shop.clock, shop.ids, settings.aftersales),
        inspections=CaseInspections(shop.db, shop.clock, settings.aftersales),
        shipping=Shipping(shop.db, shop.clock, policy, ReturnShipmentUpdates(hook)),
        steps=steps,
    )
