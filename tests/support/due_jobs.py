"""Jobs that tests put for rows that they insert themselves."""

from __future__ import annotations

from uuid import UUID

from commerce.jobs import store
from commerce.kernel.postgres import Connection
from ops.services import CliServices


async def count_open(shop: CliServices, queue: str) -> int:
    """Count the jobs of a queue that are not parked."""
    async with shop.db.connection() as connection:
        return await store.count_jobs(connection, queue)


async def put_due(connection: Connection, queue: str, kind: str, subject: UUID | str) -> None:
    """Put a job that has been due for an hour, by the server's clock."""
    await connection.execute(
        "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at) "
        "VALUES ($1, $2, $3, 'internal', now() - interval '1 hour', now() - interval '1 hour') "
        "ON CONFLICT (subject, queue) DO UPDATE SET due_at = excluded.due_at",
        *(subject, queue, kind),
    )
