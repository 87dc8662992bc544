"""Jobs of orders: plan their shipments, complete delivered ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from uuid import UUID

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.planning import FulfilmentPlanner, PlanResult
from commerce.jobs.model import Job, JobHandler, JobResult, finished, parked
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.shipping import shipment_status
from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_tasks import OrderTask

_MAX_ORDERS_PER_PLAN = 20
"""orders per transaction: so many are locked until its commit"""
_Step = Callable[[Connection, UUID, datetime], Awaitable[str]]


class OrderJobs:
    """Does the next step of an order, in one transaction that holds the order lock."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        assignment: CarrierAssignment,
        policy: ShippingPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._planner = FulfilmentPlanner(ids, assignment, policy)

    def list_handlers(self, max_attempts: int) -> dict[str, JobHandler]:
        """Return the handler of each kind. An order that staff must look at first is parked."""
        steps: dict[OrderTask, _Step] = {"order.complete": self._complete}
        handlers: dict[str, JobHandler] = {
            kind: JobHandler(self._work_by(step), max_attempts=max_attempts) for kind, step in steps.items()
        }
        return {**handlers, "order.plan": JobHandler(self._plan, _MAX_ORDERS_PER_PLAN, max_attempts)}

    def _work_by(self, step: _Step) -> Callable[[Sequence[Job]], Awaitable[Sequence[JobResult]]]:
        async def work(jobs: Sequence[Job]) -> Sequence[JobResult]:
            [job] = jobs
            async with self._db.transaction() as connection:
                return [finished(await step(connection, job.subject, self._now()))]

        return work

    async def _plan(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Plan orders in one transaction. An order that somebody has locked waits in its own."""
        async with self._db.transaction() as connection:
            results = await self._planner.plan_free(connection, [job.subject for job in jobs], self._now())
        for job in jobs:
            if job.subject not in results:
                async with self._db.transaction() as connection:
                    results[job.subject] = await self._planner.plan(connection, job.subject, self._now())
        return [_plan_result(results[job.subject]) for job in jobs]

    async def _complete(self, connection: Connection, order_id: UUID, now: datetime) -> str:
        order = await orders.lock_order(connection, order_id)
        current = await store.get_fulfilment(connection, order_id)
        if order is None or current is None or current.status != "delivered":
            return "unchanged"
        await orders.advance_status(
            connection,
            order_id,
            OrderStatus.DELIVERED,
            OrderStatus.COMPLETED,
            now,
            shipment_status.ACTOR,
            "the return period is over",
        )
        await store.mark_fulfilment_done(connection, order_id)
        return "completed"

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _plan_result(result: PlanResult) -> JobResult:
    return parked("cannot_ship", str(result)) if isinstance(result, CannotShip) else finished(result)
