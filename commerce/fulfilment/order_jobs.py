"""Jobs of orders: plan their shipments, stop refunded ones, complete delivered ones."""

from __future__ import annotations

from datetime import datetime

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import OrderJob
from commerce.fulfilment.planning import FulfilmentPlanner
from commerce.fulfilment.shipment_jobs import cancel_before_dispatch
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.errors import CannotShip
from commerce.shipping.model import ShipmentStatus
from commerce.shipping.policy import ShippingPolicy


class OrderJobs:
    """Does the next step of an order, in one transaction that holds the order lock."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, assignment: CarrierAssignment, policy: ShippingPolicy
    ) -> None:
        self._db = db
        self._clock = clock
        self._planner = FulfilmentPlanner(ids, assignment, policy)

    async def claim(self, count: int, lease_s: int) -> list[OrderJob]:
        """Claim up to `count` due orders for `lease_s` seconds."""
        async with self._db.connection() as connection:
            return await store.claim_fulfilments(connection, self._now(), lease_s, count)

    async def work(self, job: OrderJob) -> str:
        """Plan, stop or complete the order of a claimed job.

        Returns `planned`, `stopped`, `completed`, `unchanged` if another worker was faster, or `cannot_ship` after
        parking the order for staff.
        """
        now = self._now()
        try:
            async with self._db.transaction() as connection:
                if job.status == "delivered":
                    return await self._complete(connection, job, now)
                if job.status == "planned":
                    return await self._stop(connection, job)
                return await self._planner.plan(connection, job, now)
        except CannotShip as error:
            async with self._db.connection() as connection:
                await store.park_fulfilment(connection, job.order_id, now, str(error))
            return "cannot_ship"

    async def _complete(self, connection: Connection, job: OrderJob, now: datetime) -> str:
        order = await orders.lock_order(connection, job.order_id)
        current = await store.get_fulfilment(connection, job.order_id)
        if order is None or current is None or current.status != "delivered":
            return "unchanged"
        await orders.advance_status(
            connection,
            order.order_id,
            OrderStatus.DELIVERED,
            OrderStatus.COMPLETED,
            now,
            shipment_status.ACTOR,
            "the return period is over",
        )
        await store.mark_fulfilment_done(connection, order.order_id)
        return "completed"

    async def _stop(self, connection: Connection, job: OrderJob) -> str:
        """Cancel all shipments of an order that have not left, if all of its money is or will be refunded.

        A refund makes the order due. Shipments that wait for a carrier are cancelled as well.
        """
        order = await orders.lock_order(connection, job.order_id)
        current = await store.get_fulfilment(connection, job.order_id)
        if order is None or current is None or current.status != "planned":
            return "unchanged"
        await store.mark_fulfilment_checked(connection, job.order_id)
        if not await shipment_status.must_not_ship(connection, order):
            return "unchanged"
        for shipment in await shipments.list_shipments(connection, job.order_id):
            is_being_cancelled = shipment.task == "cancel" and shipment.after_cancel == "cancelled"
            if shipment.status in (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED) and not is_being_cancelled:
                await cancel_before_dispatch(connection, shipment, self._now())
        return "stopped"

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
