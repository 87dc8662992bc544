"""Jobs in all states, which staff list and change."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from commerce.jobs import store
from commerce.jobs.model import JobKey, NewJob
from commerce.jobs.store import Postponement
from commerce.kernel.clock import from_ms
from ops.services import CliServices

LEASE = timedelta(seconds=30)


async def add_job(
    shop: CliServices,
    queue: str = "payments",
    kind: str = "payment.query",
    system: str = "alipay",
    *,
    due_in_s: float = -10,
    error: str | None = None,
    is_parked: bool = False,
    is_leased: bool = False,
    created_ago_s: float = 20,
    subject: UUID | None = None,
) -> JobKey:
    """Put a job, and bring it into a state as workers do.

    With an error it has failed, and is due after `due_in_s`."""
    now = from_ms(shop.clock.now_ms())
    subject = subject or shop.ids.new()
    due_at = now + timedelta(seconds=due_in_s)
    put_at = now - timedelta(seconds=created_ago_s)
    async with shop.db.connection() as connection:
        first_due_at = put_at if error or is_leased else due_at
        await store.put(connection, queue, [NewJob(subject, kind, system, first_due_at)], put_at)
        if error or is_leased:
            jobs = await store.claim(connection, queue, now, now + LEASE, 1_000, {})
            [job] = [job for job in jobs if job.subject == subject]
            if error:
                postponement = Postponement(job, due_at, None, error, is_parked)
                assert await store.postpone(connection, queue, [postponement]) == {subject}
    return JobKey(queue, subject)
