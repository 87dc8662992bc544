"""The queues of fulfilment: orders to plan, and shipments to bring to their carriers."""

from __future__ import annotations

from collections.abc import Collection

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.order_jobs import OrderJobs
from commerce.fulfilment.shipment_jobs import ShipmentJobs
from commerce.fulfilment.tracking_jobs import TrackingJobs
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.orders.model import FULFILMENTS
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_tasks import SHIPMENTS


class FulfilmentJobs:
    """The jobs of `orders` and of their `shipments`.

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
        self._db = db
        self._clock = clock
        self._rows_per_claim = retry_policy.rows_per_claim
        order_jobs = OrderJobs(db, clock, ids, assignment, policy)
        self._shipment_jobs = ShipmentJobs(db, clock, ids, retry_policy, carriers, assignment, policy)
        self.orders = JobQueue(FULFILMENTS, order_jobs.list_handlers(max_attempts), db, clock, retry_policy)
        tracking_jobs = TrackingJobs(db, clock, carriers, policy)
        handlers = self._shipment_jobs.list_handlers(max_attempts) | tracking_jobs.list_handlers(max_attempts)
        self.shipments = JobQueue(SHIPMENTS, handlers, db, clock, retry_policy)

    async def reassign(self, unavailable_systems: Collection[str]) -> None:
        """Have other carriers assigned to due shipments that wait for a system that does not answer.

        Those that were requested before keep their carrier: it may have booked them.
        """
        self._shipment_jobs.unavailable_systems = unavailable_systems
        if unavailable_systems:
            async with self._db.connection() as connection:
                now = from_ms(self._clock.now_ms())
                await store.reassign_unavailable(connection, list(unavailable_systems), now, self._rows_per_claim)
