"""The queue of fulfilment jobs: orders to plan and shipments to bring to their carriers."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import OrderJob
from commerce.fulfilment.order_jobs import OrderJobs
from commerce.fulfilment.shipment_jobs import ShipmentJobs
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.model import Shipment
from commerce.shipping.policy import ShippingPolicy

Job = Shipment | OrderJob


class FulfilmentQueue:
    """Claims due orders and shipments and does one job at a time.

    A job that fails `max_attempts` times is parked.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        retry_policy: RetryPolicy,
        max_attempts: int,
        carriers: CarrierRegistry,
        assignment: CarrierAssignment,
        policy: ShippingPolicy,
    ) -> None:
        self._lease_s = retry_policy.lease_s
        self._orders = OrderJobs(db, clock, ids, assignment, policy)
        self._shipments = ShipmentJobs(db, clock, ids, retry_policy, max_attempts, carriers, assignment, policy)

    def system_of(self, job: Job) -> str:
        """Return the external system that the job calls, or `internal`."""
        return "internal" if isinstance(job, OrderJob) else self._shipments.system_of(job)

    async def claim(self, count: int, excluded_systems: Sequence[str], unavailable_systems: Sequence[str]) -> list[Job]:
        """Claim up to `count` due jobs, none of which calls an excluded system.

        Shipments whose carrier has received no request yet and is unavailable are claimed as well: `work` assigns them
        to another carrier. A quarter of `count` is kept for orders to plan.
        """
        due = await self._shipments.claim(count - count // 4, excluded_systems, unavailable_systems)
        return [*due, *await self._orders.claim(count - len(due), self._lease_s)]

    async def work(self, job: Job) -> str:
        """Do a claimed job and return its result word.

        Raises `ExternalOutcomeUnknown`, after postponing the job, if the carrier gave no usable answer.
        """
        return await (self._orders.work(job) if isinstance(job, OrderJob) else self._shipments.work(job))
