"""The jobs of return shipments: their queue and kinds."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.jobs.store import JobState
from commerce.kernel.postgres import Connection
from commerce.shipping.carrier_port import Carrier
from commerce.shipping.shipment_tasks import system_of

RETURN_SHIPMENTS = "return_shipments"
ReturnTask = Literal[
    "return_shipment.assign",  # choose a carrier; those that have refused may be asked again
    "return_shipment.book",
    "return_shipment.cancel",
    "return_shipment.subscribe",
    "return_shipment.poll",
]


async def put_task(
    connection: Connection,
    return_shipment_id: UUID,
    task: ReturnTask,
    carrier: Carrier | None,
    due_at: datetime,
    now: datetime,
) -> None:
    """Put what is to be done next with a return shipment, in place of what was to be done."""
    await jobs.put(connection, RETURN_SHIPMENTS, [NewJob(return_shipment_id, task, system_of(carrier), due_at)], now)


async def put_follow_up(
    connection: Connection, return_shipment_id: UUID, carrier: Carrier, poll_at: datetime, now: datetime
) -> None:
    """Put the job that follows a return shipment: a subscription where the carrier needs one, else polls."""
    if carrier.needs_subscription:
        await put_task(connection, return_shipment_id, "return_shipment.subscribe", carrier, now, now)
    else:
        await put_task(connection, return_shipment_id, "return_shipment.poll", carrier, poll_at, now)


async def put_parked(connection: Connection, return_shipment_id: UUID, reason: str, now: datetime) -> None:
    """Put a job that waits for staff: no carrier collects the shipment."""
    job = NewJob(return_shipment_id, "return_shipment.assign", INTERNAL_SYSTEM, now)
    await jobs.put_parked(connection, RETURN_SHIPMENTS, job, reason, now)


async def find_job(connection: Connection, return_shipment_id: UUID) -> JobState | None:
    return next(iter(await jobs.find(connection, RETURN_SHIPMENTS, [return_shipment_id])), None)
