"""The jobs of shipments and of orders that are to be shipped: their queues and kinds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.postgres import Connection
from commerce.orders.model import ADVANCE_CANCELLATIONS, CANCELLATIONS, CASES, FULFILMENTS
from commerce.shipping.carrier_port import Carrier
from commerce.shipping.model import ShipmentJob

SHIPMENTS = "shipments"
Task = Literal[
    "shipment.assign",
    "shipment.assign_again",  # carriers that have refused it may be asked again
    "shipment.book",
    "shipment.cancel",
    "shipment.subscribe",
    "shipment.track",
]
OrderTask = Literal["order.plan", "order.complete"]
OPEN_CASES = "case.open"


def system_of(carrier: Carrier | None) -> str:
    """Return the external system of a carrier, or `internal` if none is called."""
    return carrier.system if carrier is not None and carrier.is_external else INTERNAL_SYSTEM


async def put_task(
    connection: Connection, shipment_id: UUID, task: Task, carrier: Carrier | None, due_at: datetime, now: datetime
) -> None:
    """Put what is to be done next with a shipment, in place of what was to be done."""
    await jobs.put(connection, SHIPMENTS, [NewJob(shipment_id, task, system_of(carrier), due_at)], now)


async def put_follow_up(
    connection: Connection, shipment_id: UUID, carrier: Carrier, poll_at: datetime, now: datetime
) -> None:
    """Put the job that follows a booked shipment.

    A carrier that needs it gets a subscription now, others are polled at `poll_at`: also a shipment that cannot be
    tracked, because its order may be stopped.
    """
    await put_follow_ups(connection, [(shipment_id, carrier)], poll_at, now)


async def put_follow_ups(
    connection: Connection, booked: Sequence[tuple[UUID, Carrier]], poll_at: datetime, now: datetime
) -> None:
    """Put the jobs that follow booked shipments, as `put_follow_up` does."""
    new_jobs = [
        NewJob(shipment_id, "shipment.subscribe", system_of(carrier), now)
        if carrier.needs_subscription
        else NewJob(shipment_id, "shipment.track", system_of(carrier), poll_at)
        for shipment_id, carrier in booked
    ]
    await jobs.put(connection, SHIPMENTS, new_jobs, now)


async def put_order_tasks(
    connection: Connection, order_ids: Sequence[UUID], task: OrderTask, due_at: datetime, now: datetime
) -> None:
    """Put what is to be done next with orders that are to be shipped."""
    new_jobs = [NewJob(order_id, task, INTERNAL_SYSTEM, due_at) for order_id in order_ids]
    await jobs.put(connection, FULFILMENTS, new_jobs, now)


async def put_cancellation_jobs(
    connection: Connection, order_ids: Collection[UUID], due_at: datetime, now: datetime
) -> None:
    """Have the cancellations of orders advanced, and units without a shipment decided."""
    new_jobs = [NewJob(order_id, ADVANCE_CANCELLATIONS, INTERNAL_SYSTEM, due_at) for order_id in order_ids]
    await jobs.put(connection, CANCELLATIONS, new_jobs, now)


async def put_case_openings(connection: Connection, order_ids: Collection[UUID], now: datetime) -> None:
    """Have returns opened for delivered units of orders that were cancelled too late to be stopped."""
    new_jobs = [NewJob(order_id, OPEN_CASES, INTERNAL_SYSTEM, now) for order_id in order_ids]
    await jobs.put(connection, CASES, new_jobs, now)


async def list_jobs(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, ShipmentJob]:
    """Return the jobs of those of the shipments that have one."""
    return {
        job.subject: ShipmentJob(job.kind, job.system, job.due_at, job.attempts, job.parked, job.last_error)
        for job in await jobs.find(connection, SHIPMENTS, shipment_ids)
    }


async def get_job(connection: Connection, shipment_id: UUID) -> ShipmentJob | None:
    return (await list_jobs(connection, [shipment_id])).get(shipment_id)
