"""Rows of jobs.

Statements get their subjects in sorted sequence, so that two that lock the same rows do not wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commerce.jobs.model import GroupName, Job, JobKey, NewJob
from commerce.kernel.postgres import Connection, note_for_commit
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)
_MAX_ERROR_CHARACTERS = 500


class JobState(NamedTuple):
    """A job as it stands, due or not."""

    subject: UUID
    kind: str
    system: str
    due_at: datetime
    attempts: int
    parked: bool
    last_error: str | None


class Postponement(NamedTuple):
    """A claimed job with its next due time, its next kind (None: the same) and its error, if any.

    Without an error, and with `starts_over`, its attempts start over."""

    job: Job
    due_at: datetime
    kind: str | None = None
    error: str | None = None
    is_parked: bool = False
    starts_over: bool = False


class JobRow(NamedTuple):
    """A job as it is stored."""

    queue: str
    subject: UUID
    kind: str
    system: str
    due_at: datetime
    leased_until: datetime | None
    attempts: int
    parked: bool
    last_error: str | None
    created_at: datetime


class GroupStart(NamedTuple):
    """A group of jobs, and the time and subject after which a page begins."""

    queue: str
    system: str
    kind: str
    due_at: datetime
    subject: UUID


async def put(connection: Connection, queue: str, jobs: Sequence[NewJob], now: datetime) -> None:
    """Put jobs into a queue, each in the place of the one that its subject has there.

    Call inside the transaction of the change that needs them. Workers are woken by the commit if one is due."""
    if not jobs:
        return
    jobs = sorted(jobs)
    await connection.execute(
        queries.put,
        queue,
        [job.subject for job in jobs],
        [job.kind for job in jobs],
        [job.system for job in jobs],
        [job.due_at for job in jobs],
        now,
    )
    if any(job.due_at <= now for job in jobs):
        wake_after_commit(connection, queue)


async def put_parked(connection: Connection, queue: str, job: NewJob, error: str, now: datetime) -> None:
    """Put a job that is given up from the start, until staff have removed the cause."""
    await connection.execute(
        queries.put_parked,
        *(queue, job.subject, job.kind, job.system, job.due_at, _storable_error(error), now),
    )


async def find(connection: Connection, queue: str, subjects: Sequence[UUID]) -> list[JobState]:
    """Return the jobs of those of the subjects that have one in a queue."""
    return [JobState(*row) for row in await connection.fetch(queries.find, queue, subjects)]


def wake_after_commit(connection: Connection, queue: str) -> None:
    """Wake the queue's workers after the commit, for a statement that inserts jobs itself."""
    note_for_commit(connection, queue)


def wake_waiters_after_commit(connection: Connection, order_id: UUID) -> None:
    """Wake those who wait for a change of an order, after the commit."""
    note_for_commit(connection, order_id)


async def claim(
    connection: Connection, queue: str, now: datetime, lease_until: datetime, count: int, room: Mapping[str, int]
) -> list[Job]:
    """Claim up to `count` due jobs, fair between kinds and systems, in no sequence.

    `room` has the highest number by system; others are limited by `count` alone."""
    rows = await connection.fetch(queries.claim, queue, now, lease_until, count, list(room), list(room.values()))
    return [Job(*row) for row in rows]


async def finish(connection: Connection, jobs: Iterable[Job]) -> set[UUID]:
    """Delete jobs whose claim still holds. Returns their subjects."""
    finished: set[UUID] = set()
    for queue, group in _by_queue(sorted(jobs)).items():
        rows = await connection.fetch(queries.finish, queue, *_claims(group))
        finished.update(row["subject"] for row in rows)
    return finished


async def postpone(connection: Connection, queue: str, postponements: Sequence[Postponement]) -> set[UUID]:
    """Postpone or park jobs of a queue whose claim still holds. Returns their subjects."""
    if not postponements:
        return set()
    postponements = sorted(postponements, key=lambda postponement: postponement.job.subject)
    rows = await connection.fetch(
        queries.postpone,
        queue,
        *_claims([postponement.job for postponement in postponements]),
        [postponement.due_at for postponement in postponements],
        [postponement.kind for postponement in postponements],
        [_storable_error(postponement.error) for postponement in postponements],
        [postponement.is_parked for postponement in postponements],
        [postponement.starts_over or postponement.error is None for postponement in postponements],
    )
    return {row["subject"] for row in rows}


async def remove(connection: Connection, queue: str, subjects: Sequence[UUID]) -> None:
    """Delete the jobs of these subjects, claimed or not: nothing is left to do."""
    if subjects:
        await connection.execute(queries.remove, queue, sorted(subjects))


async def retry(connection: Connection, queue: str, subjects: Sequence[UUID], now: datetime) -> set[UUID]:
    """Make the jobs of these subjects due now, parked ones too. Returns the subjects that have one."""
    rows = await connection.fetch(queries.retry, queue, sorted(subjects), now)
    wake_after_commit(connection, queue)
    return {row["subject"] for row in rows}


async def measure_due(connection: Connection) -> list[tuple[str, str, str, datetime]]:
    """Return (queue, system, kind, first due time) of all jobs that are not parked."""
    return [tuple(row) for row in await connection.fetch(queries.measure_due)]


async def count_jobs(connection: Connection, queue: str) -> int:
    """Count the jobs of a queue that are not parked."""
    return int(await connection.fetchval(queries.count_jobs, queue))


def _storable_error(error: str | None) -> str | None:
    """Shorten an error, and replace what Postgres refuses in a text: it would refuse the whole batch.

    External systems word errors, and may send NUL or half of a surrogate pair."""
    return error and error[:_MAX_ERROR_CHARACTERS].replace("\0", " ").encode(errors="replace").decode()


async def count_parked(connection: Connection) -> dict[GroupName, int]:
    """Count the parked jobs by (queue, system, kind)."""
    rows = await connection.fetch(queries.count_parked)
    return {(row["queue"], row["system"], row["kind"]): row["jobs"] for row in rows}


async def count_due(
    connection: Connection, groups: Sequence[GroupName], now: datetime, max_per_group: int
) -> dict[GroupName, int]:
    """Count the due jobs of (queue, system, kind) groups, up to a number."""
    names = [[group[at] for group in groups] for at in range(3)]
    rows = await connection.fetch(queries.count_due, *names, now, max_per_group)
    return {(row["queue"], row["system"], row["kind"]): row["jobs"] for row in rows}


async def get_jobs(connection: Connection, keys: Sequence[JobKey]) -> list[JobRow]:
    """Return those of the jobs that there are."""
    return [JobRow(*row) for row in await connection.fetch(queries.get_jobs, *_keys(keys))]


async def list_orders(connection: Connection, keys: Sequence[JobKey]) -> dict[JobKey, UUID]:
    """Return the orders of those of the jobs whose subjects belong to one."""
    rows = await connection.fetch(queries.list_orders, *_keys(keys))
    return {JobKey(row["queue"], row["subject"]): row["order_id"] for row in rows}


async def list_of_order(connection: Connection, order_id: UUID) -> list[JobRow]:
    """List the jobs of an order, its payments, refunds, shipments and returns, by queue and subject."""
    return [JobRow(*row) for row in await connection.fetch(queries.list_of_order, order_id)]


async def list_scheduled(
    connection: Connection, starts: Sequence[GroupStart], until: datetime, is_leased: bool | None, count: int
) -> list[JobRow]:
    """List jobs of groups, by group and due time, without parked ones."""
    columns = [[start[at] for start in starts] for at in range(len(GroupStart._fields))]
    rows = await connection.fetch(queries.list_scheduled, *columns, until, is_leased, count)
    return [JobRow(*row) for row in rows]


async def list_failed_queues(connection: Connection, is_parked: bool) -> list[str]:
    """Return the queues with parked jobs, or with failed ones that are not parked."""
    return [row["queue"] for row in await connection.fetch(queries.list_failed_queues, is_parked)]


async def find_last_examined(
    connection: Connection, is_parked: bool, queue: str, after: UUID, count: int
) -> UUID | None:
    """Return the last of `count` jobs of `list_failed`; None if there are fewer."""
    last: UUID | None = await connection.fetchval(queries.find_last_examined, is_parked, queue, after, count)
    return last


async def list_failed(
    connection: Connection,
    is_parked: bool,
    queue: str,
    after: UUID,
    last: UUID | None,
    kind: str | None,
    system: str | None,
    due_until: datetime,
    words: Sequence[str],
    count: int,
) -> list[JobRow]:
    """List parked jobs of a queue by subject, or failed ones that are not parked.

    `words` are in lower case."""
    values = (is_parked, queue, after, last, kind, system, due_until, words, count)
    return [JobRow(*row) for row in await connection.fetch(queries.list_failed, *values)]


async def retry_failed(connection: Connection, keys: Sequence[JobKey], now: datetime) -> list[JobKey]:
    """Make failed and parked jobs due now that no worker does at the moment. Returns their keys."""
    rows = await connection.fetch(queries.retry_failed, *_keys(keys), now)
    retried = [JobKey(*row) for row in rows]
    for queue in {key.queue for key in retried}:
        wake_after_commit(connection, queue)
    return retried


async def cancel(connection: Connection, keys: Sequence[JobKey], kinds: Collection[str]) -> list[JobKey]:
    """Delete parked jobs of these kinds. Returns their keys."""
    rows = await connection.fetch(queries.cancel, *_keys(keys), list(kinds))
    return [JobKey(*row) for row in rows]


def _keys(keys: Sequence[JobKey]) -> tuple[list[str], list[UUID]]:
    return [key.queue for key in keys], [key.subject for key in keys]


def _claims(jobs: Sequence[Job]) -> tuple[list[UUID], list[int], list[datetime]]:
    return [job.subject for job in jobs], [job.attempts for job in jobs], [job.leased_until for job in jobs]


def _by_queue(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.queue].append(job)
    return groups
