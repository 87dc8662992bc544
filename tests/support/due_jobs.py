"""Jobs that tests put for rows that they insert themselves."""

from __future__ import annotations

from uuid import UUID

from commerce.kernel.postgres import Connection


async def put_due(connection: Connection, queue: str, kind: str, subject: UUID | str) -> None:
    """Put a job that has been due for an hour, by the server's clock."""
    await connection.execute(
        "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at) "
        "VALUES ($1, $2, $3, 'internal', now() - interval '1 hour', now() - interval '1 hour') "
        "ON CONFLICT (subject, queue) DO UPDATE SET due_at = excluded.due_at",
        *(subject, queue, kind),
    )
