"""The common part of jobs that call carriers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.jobs.model import Job, JobHandler, JobResult, finished, parked, postponed
from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalRefusal
from commerce.kernel.postgres import Connection, Database
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import Carrier, CarrierRegistry
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_tasks import Task, put_task

_HELD_S = 86_400
"""postponement of a held shipment's job; resuming the shipment makes it due at once"""
UNCHANGED = finished("unchanged")
Work = Callable[[Job], Awaitable[JobResult]]


class CarrierJobs:
    """Base of the classes that do jobs of shipments, one at a time."""

    def __init__(self, db: Database, clock: Clock, carriers: CarrierRegistry, policy: ShippingPolicy) -> None:
        self._db = db
        self._clock = clock
        self._carriers = carriers
        self._policy = policy
        self._shipments: Batcher[UUID, Shipment | None] = Batcher(self._read_all)

    def make_handlers(self, works: Mapping[Task, Work], max_attempts: int) -> dict[str, JobHandler]:
        """Return the handler of each kind. A job that is refused is parked."""
        return {kind: JobHandler(self._park_refused(work), max_attempts=max_attempts) for kind, work in works.items()}

    def _park_refused(self, work: Work) -> Callable[[Sequence[Job]], Awaitable[Sequence[JobResult]]]:
        async def work_on(jobs: Sequence[Job]) -> Sequence[JobResult]:
            [job] = jobs
            try:
                return [await work(job)]
            except ExternalRefusal as error:
                carrier = (await self._read(job)).carrier
                return [parked("refused", f"{carrier} refuses: {error}")]
            except UniqueViolationError as error:
                if error.constraint_name != shipments.TRACKING_NO_CONSTRAINT:
                    raise
                carrier = (await self._read(job)).carrier
                return [parked("tracking_no_conflict", f"{carrier} returned the tracking number of another shipment")]

        return work_on

    def _carrier(self, shipment: Shipment) -> Carrier | None:
        return self._carriers.by_name.get(shipment.carrier) if shipment.carrier else None

    def _booked_carrier(self, shipment: Shipment) -> Carrier:
        """Return the carrier that got a request for a shipment.

        Raises `ExternalRefusal` if the settings do not name it.
        """
        carrier = self._carrier(shipment)
        if carrier is None:
            raise not_offered()
        return carrier

    def _postpone_held(self) -> JobResult:
        return postponed("held", self._now() + timedelta(seconds=_HELD_S))

    async def _cancel_if_must_not_ship(self, connection: Connection, order: OrderHeader, shipment: Shipment) -> bool:
        """Cancel the shipment, or start to cancel its booking, if its order must not be shipped any more."""
        if not await shipment_status.must_not_ship(connection, order):
            return False
        await cancel_before_dispatch(connection, shipment, self._carrier(shipment), self._now())
        return True

    async def _read(self, job: Job) -> Shipment:
        """Read the shipment of a job, with those of concurrent jobs."""
        shipment = await self._shipments.add(job.subject)
        assert shipment is not None
        return shipment

    async def _read_all(self, shipment_ids: Sequence[UUID]) -> list[Shipment | None]:
        async with self._db.connection() as connection:
            rows = await shipments.get_shipments(connection, shipment_ids)
        return [rows.get(shipment_id) for shipment_id in shipment_ids]

    def next_poll_at(self, shipment: Shipment) -> datetime:
        """Return the next time to poll tracking.

        Polls become rarer as the booking ages, since webhooks bring most events.
        """
        now = self._now()
        age_s = (now - (shipment.booked_at or now)).total_seconds()
        wait_s = min(max(age_s / 4, self._policy.tracking_poll_initial_s), self._policy.tracking_poll_max_s)
        return now + timedelta(seconds=max(wait_s, self._min_poll_interval_s(shipment)))

    def _min_poll_interval_s(self, shipment: Shipment) -> float:
        carrier = self._carrier(shipment)
        return carrier.min_poll_interval_s if carrier else 0

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def not_offered() -> ExternalRefusal:
    """Make the error of a job of a carrier that got a request and that the settings do not name any more."""
    return ExternalRefusal("not_offered", "the settings do not name it")


async def cancel_before_dispatch(
    connection: Connection,
    shipment: Shipment,
    carrier: Carrier | None,
    now: datetime,
    reason: str = "the order is refunded",
) -> None:
    """Cancel a shipment that must not leave, or start to cancel its booking if it has one.

    Call inside a transaction that holds the order lock.
    """
    if shipment.booking_id is not None:
        await shipments.set_after_cancel(connection, shipment.shipment_id, "cancelled")
        await put_task(connection, shipment.shipment_id, "shipment.cancel", carrier, now, now)
        return
    await shipment_status.record_step(
        *(connection, shipment, ShipmentStatus.CANCELLED, now),
        *("system", shipment_status.ACTOR, reason),
    )


def is_followed(shipment: Shipment) -> bool:
    """Tell whether a shipment is with its carrier, or will be, and its tracking is of interest."""
    return shipment.tracking_no is not None and shipment.after_cancel is None and shipment.ended_at is None


async def reload_shipment(connection: Connection, shipment_id: UUID) -> Shipment:
    """Read a shipment that exists."""
    shipment = await shipments.get_shipment(connection, shipment_id)
    assert shipment is not None
    return shipment
