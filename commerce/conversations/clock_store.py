"""Rows of clocks, and the deadlines that conversations are sorted by."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from commerce.conversations.clock_events import StoredEvent
from commerce.conversations.deadlines import ClockRun, Deadlines
from commerce.conversations.store import queries
from commerce.deadline_policies.store import PolicyInForce
from commerce.kernel.postgres import Connection


async def list_clock_events(connection: Connection, conversation_id: UUID) -> list[StoredEvent]:
    """List the events that may concern a clock."""
    return [StoredEvent(**row) for row in await connection.fetch(queries.list_clock_events, conversation_id)]


async def put_clocks(
    connection: Connection, conversation_id: UUID, deadlines: Deadlines, policy: PolicyInForce
) -> None:
    """Store the next deadline of a conversation and the runs of its clocks."""
    due = deadlines.due_at, deadlines.due_kind
    columns = list(zip(*map(_values, deadlines.runs), strict=True)) or [()] * 9
    await connection.execute(
        queries.put_clocks, conversation_id, *due, policy.policy_id, policy.generation, *map(list, columns)
    )


def _values(run: ClockRun) -> tuple[object, ...]:
    allowed_s = None if run.allowed is None else int(run.allowed.total_seconds())
    name = (run.kind, run.run_no, run.started_at, allowed_s, run.due_at)
    return (*name, run.stopped_at, run.stopped_by, int(run.worked.total_seconds()), run.is_late)


async def delete_running_clocks(connection: Connection, conversation_id: UUID) -> None:
    """Delete the runs that have not stopped."""
    await connection.execute(queries.delete_running_clocks, conversation_id)


async def get_waiting_since(connection: Connection, conversation_id: UUID) -> datetime | None:
    """Return since when the customer waits for the first response, if so."""
    since: datetime | None = await connection.fetchval(queries.get_waiting_since, conversation_id)
    return since


async def lock_outdated(connection: Connection, generation: int, count: int) -> list[UUID]:
    """Lock open conversations whose deadlines are of an older generation."""
    return [row["conversation_id"] for row in await connection.fetch(queries.lock_outdated, generation, count)]


async def lock_late(connection: Connection, policy_id: str, now: datetime, count: int) -> list[UUID]:
    """Lock conversations of a policy that are late and were not escalated."""
    return [row["conversation_id"] for row in await connection.fetch(queries.lock_late, policy_id, now, count)]


async def count_overdue(connection: Connection, now: datetime) -> dict[str, int]:
    """Count the conversations past their deadline by what is due."""
    return {row["due_kind"]: row["conversations"] for row in await connection.fetch(queries.count_overdue, now)}


async def count_outdated(connection: Connection, generation: int) -> int:
    """Count open conversations whose deadlines are of an older generation."""
    count: int = await connection.fetchval(queries.count_outdated, generation)
    return count


async def count_unanswered(connection: Connection) -> int:
    """Count the conversations whose customers wait for a first response."""
    count: int = await connection.fetchval(queries.count_unanswered)
    return count


async def find_oldest_unanswered(connection: Connection) -> tuple[datetime, str | None] | None:
    """Return since when the customer waits who has waited longest, and the policy of the conversation."""
    row = await connection.fetchrow(queries.find_oldest_unanswered)
    return None if row is None else (row["started_at"], row["deadline_policy_id"])
