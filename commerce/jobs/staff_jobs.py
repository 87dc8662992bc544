"""Jobs for staff: list them with filters, show, retry and cancel them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from msgspec import structs

from commerce.jobs import store
from commerce.jobs.cancellation import CANCELLABLE_KINDS, explain_refusal
from commerce.jobs.errors import JobLeased, JobNotCancellable, JobNotFailed, JobNotParked, NoSuchJob
from commerce.jobs.model import GroupLoad, GroupName, JobChanges, JobDetails, JobFilter, JobKey, JobState, RefusedJob
from commerce.jobs.store import GroupStart, JobRow
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

_logger = logging.getLogger(__name__)
_EXAMINED = 10_000
"""parked and failed jobs that a page examines at the highest"""
_COUNTED = 100_000
_FIRST_ID, _LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 1, 1, tzinfo=UTC)
_STATES: tuple[JobState, ...] = ("parked", "due", "leased", "waiting")
_FAILED_STATES: tuple[JobState, ...] = ("parked", "failed")
_AGED_STATES: tuple[JobState, ...] = ("parked", "due")
CURSOR_PATTERN = r"^(parked|failed|due|leased|waiting),[a-z0-9_]+,[a-z0-9_]*,[a-z0-9_.]*,[0-9]{1,17},[0-9a-f-]{36}$"


class _Position(NamedTuple):
    """The last job of a page. Of parked and failed jobs only queue and subject count."""

    state: JobState
    queue: str
    system: str = ""
    kind: str = ""
    due_us: int = 0
    subject: UUID = _FIRST_ID

    @classmethod
    def parse(cls, cursor: str) -> _Position:
        try:
            state, queue, system, kind, due_us, subject = cursor.split(",")
            return cls(state, queue, system, kind, int(due_us), UUID(subject))  # type: ignore[arg-type]  # as it matches
        except ValueError:
            raise Invalid("cursor: use `next` of the previous page as it is") from None

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @property
    def due_at(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.due_us)


Action = Literal["retried", "cancelled"]


class SubjectHistory(Protocol):
    """Records in the history of a queue's subjects what staff do with their jobs."""

    async def lock(self, connection: Connection, subjects: Sequence[UUID]) -> None:
        """Take the locks that `record` needs. Whoever works on the jobs takes them before it locks the jobs."""

    async def record(
        self, connection: Connection, subjects: Sequence[UUID], action: Action, actor: str, now: datetime
    ) -> None: ...


class StaffJobs:
    """The jobs of all queues. `lease_s` is the longest lease of a claim.

    `histories` maps queues to the histories of their subjects. The log has each change of the others."""

    def __init__(
        self, db: Database, clock: Clock, lease_s: int, histories: Mapping[str, SubjectHistory] | None = None
    ) -> None:
        self._db = db
        self._clock = clock
        self._histories = histories or {}
        self._lease = timedelta(seconds=lease_s)

    async def list_jobs(self, wanted: JobFilter, cursor: str | None, size: int) -> Page[JobDetails]:
        """List parked jobs first, then due, leased and waiting ones; with words parked, then failed ones.

        Of parked and failed ones a page examines a limited number: it may be short, or empty, and not the last.
        Those of an order are listed by queue and subject. Raises `Invalid` if the filters exclude each other or the
        cursor is not one."""
        states = _select_states(wanted)
        if wanted.order_id is not None:
            return await self._list_of_order(wanted, wanted.order_id, states, cursor, size)
        position = _Position.parse(cursor) if cursor else _Position(states[0], "")
        if position.state not in states:
            raise Invalid("cursor: it belongs to a list with other filters")
        rows: list[tuple[JobState, JobRow]] = []
        rest: _Position | None = None
        async with self._db.connection() as connection:
            for state in states[states.index(position.state) :]:
                start = position if state == position.state else _Position(state, "")
                list_state = self._list_failed if state in _FAILED_STATES else self._list_scheduled
                listed, rest = await list_state(connection, wanted, start, size + 1 - len(rows))
                rows += [(state, row) for row in listed]
                if len(rows) > size or rest is not None:
                    break
        if len(rows) > size:
            rows = rows[:size]
            rest = _position_of(*rows[-1])
        jobs = await self._add_orders([self._describe(row) for _, row in rows])
        return Page(jobs, str(rest) if rest is not None else None)

    async def _list_of_order(
        self, wanted: JobFilter, order_id: UUID, states: Sequence[JobState], cursor: str | None, size: int
    ) -> Page[JobDetails]:
        """List a page of an order's jobs, which are few, by queue and subject."""
        position = _Position.parse(cursor) if cursor else _Position("parked", "")
        async with self._db.connection() as connection:
            rows = await store.list_of_order(connection, order_id)
        due_until = self._now() - timedelta(seconds=wanted.min_age_s)
        jobs = [
            structs.replace(job, order_id=order_id)
            for job in map(self._describe, rows)
            if job.key > JobKey(position.queue, position.subject)
            and wanted.queue in (None, job.queue)
            and wanted.kind in (None, job.kind)
            and wanted.system in (None, job.system)
            and (job.state in states or ("failed" in states and job.state != "parked" and job.last_error is not None))
            and (wanted.min_age_s == 0 or job.due_at <= due_until)
            and all(word.lower() in (job.last_error or "").lower() for word in wanted.words)
        ]
        return to_page(jobs, size, lambda job: str(_Position("parked", job.queue, subject=job.subject)))

    async def get(self, key: JobKey) -> JobDetails:
        """Return a job. Raises `NoSuchJob`."""
        async with self._db.connection() as connection:
            rows = await store.get_jobs(connection, [key])
        if not rows:
            raise _explain_absence(key)
        [job] = await self._add_orders([self._describe(rows[0])])
        return job

    async def retry(self, keys: Sequence[JobKey], actor: str) -> JobChanges:
        """Make parked and failed jobs due now; their attempts start over."""
        now = self._now()
        async with self._db.transaction() as connection:
            await self._lock(connection, keys)
            changed = await store.retry_failed(connection, keys, now)
            await self._record(connection, changed, "retried", actor)
            changes = await self._list_changes(connection, keys, changed, _explain_no_retry)
        self._log("staff retry jobs", changed, actor)
        return changes

    async def retry_one(self, key: JobKey, actor: str) -> JobDetails:
        """Retry a job, as `retry`.

        Raises `NoSuchJob`, `JobLeased` if a worker does it now, and `JobNotFailed` if it only waits for its time."""
        async with self._db.transaction() as connection:
            await self._lock(connection, [key])
            if not await store.retry_failed(connection, [key], self._now()):
                raise await self._explain_one(connection, key, _explain_no_retry)
            await self._record(connection, [key], "retried", actor)
            [row] = await store.get_jobs(connection, [key])
        self._log("staff retry jobs", [key], actor)
        [job] = await self._add_orders([self._describe(row)])
        return job

    async def cancel(self, keys: Sequence[JobKey], actor: str) -> JobChanges:
        """Delete parked jobs of kinds that may be cancelled: their work stays undone."""
        async with self._db.transaction() as connection:
            await self._lock(connection, keys)
            changed = await store.cancel(connection, keys, CANCELLABLE_KINDS)
            await self._record(connection, changed, "cancelled", actor)
            changes = await self._list_changes(connection, keys, changed, _explain_no_cancel)
        self._log("staff cancel jobs", changed, actor)
        return changes

    async def cancel_one(self, key: JobKey, actor: str) -> JobDetails:
        """Cancel a job, as `cancel`, and return it as it was.

        Raises `NoSuchJob`, `JobNotCancellable` for what its kind does not allow, and `JobNotParked`."""
        async with self._db.transaction() as connection:
            await self._lock(connection, [key])
            rows = await store.get_jobs(connection, [key])
            if not await store.cancel(connection, [key], CANCELLABLE_KINDS):
                raise await self._explain_one(connection, key, _explain_no_cancel)
            await self._record(connection, [key], "cancelled", actor)
        self._log("staff cancel jobs", [key], actor)
        [job] = await self._add_orders([self._describe(rows[0])])
        return job

    async def measure_groups(self) -> dict[GroupName, GroupLoad]:
        """Count parked and due jobs by group, of the due ones up to 100,000."""
        now = self._now()
        async with self._db.connection() as connection:
            first_due = {(queue, system, kind): at for queue, system, kind, at in await store.measure_due(connection)}
            groups = [group for group, at in first_due.items() if at <= now]
            due = await store.count_due(connection, groups, now, _COUNTED)
            parked = await store.count_parked(connection)
        return {
            group: GroupLoad(parked.get(group, 0), due.get(group, 0), first_due.get(group))
            for group in first_due.keys() | parked.keys()
        }

    async def _list_failed(
        self, connection: Connection, wanted: JobFilter, start: _Position, count: int
    ) -> tuple[list[JobRow], _Position | None]:
        """List parked or failed jobs by queue and subject; and where to go on if not all could be examined."""
        rows: list[JobRow] = []
        is_parked, due_until = start.state == "parked", self._now() - timedelta(seconds=wanted.min_age_s)
        if wanted.min_age_s == 0:
            due_until = _LAST_MOMENT
        for queue in sorted(await store.list_failed_queues(connection, is_parked)):
            if queue < start.queue or wanted.queue not in (None, queue):
                continue
            after = start.subject if queue == start.queue else _FIRST_ID
            last = await store.find_last_examined(connection, is_parked, queue, after, _EXAMINED)
            rows += await store.list_failed(
                *(connection, is_parked, queue, after, last, wanted.kind, wanted.system, due_until),
                *([word.lower() for word in wanted.words], count - len(rows)),
            )
            if len(rows) >= count or last is not None:
                return rows, None if last is None else _Position(start.state, queue, subject=last)
        return rows, None

    async def _list_scheduled(
        self, connection: Connection, wanted: JobFilter, start: _Position, count: int
    ) -> tuple[list[JobRow], None]:
        """List due, leased or waiting jobs by group and due time."""
        now = self._now()
        after, until, is_leased = {
            "due": (_EPOCH, now - timedelta(seconds=wanted.min_age_s), None),
            "leased": (now, now + self._lease, True),
            "waiting": (now, _LAST_MOMENT, False),
        }[start.state]
        first = (start.queue, start.system, start.kind)
        starts = []
        for queue, system, kind, _ in await store.measure_due(connection):
            fits = all(
                value in (None, name)
                for value, name in ((wanted.queue, queue), (wanted.system, system), (wanted.kind, kind))
            )
            if fits and (queue, system, kind) >= first:
                begin = (start.due_at, start.subject) if (queue, system, kind) == first else (after, _LAST_ID)
                starts.append(GroupStart(queue, system, kind, *begin))
        return await store.list_scheduled(connection, sorted(starts), until, is_leased, count), None

    async def _list_changes(
        self,
        connection: Connection,
        keys: Sequence[JobKey],
        changed: Collection[JobKey],
        explain: Callable[[JobDetails], ProblemError],
    ) -> JobChanges:
        rest = [key for key in dict.fromkeys(keys) if key not in set(changed)]
        rows = {job.key: job for job in map(self._describe, await store.get_jobs(connection, rest))}
        problems = [(key, explain(rows[key]) if key in rows else _explain_absence(key)) for key in rest]
        refused = [RefusedJob(key.queue, key.subject, problem.code, problem.detail) for key, problem in problems]
        return JobChanges(sorted(changed), refused)

    async def _explain_one(
        self, connection: Connection, key: JobKey, explain: Callable[[JobDetails], ProblemError]
    ) -> ProblemError:
        rows = await store.get_jobs(connection, [key])
        return explain(self._describe(rows[0])) if rows else _explain_absence(key)

    async def _add_orders(self, jobs: Sequence[JobDetails]) -> list[JobDetails]:
        async with self._db.connection() as connection:
            orders = await store.list_orders(connection, [job.key for job in jobs]) if jobs else {}
        return [structs.replace(job, order_id=orders.get(job.key)) for job in jobs]

    async def _lock(self, connection: Connection, keys: Sequence[JobKey]) -> None:
        for queue, subjects in _subjects_by_queue(keys).items():
            if queue in self._histories:
                await self._histories[queue].lock(connection, subjects)

    async def _record(self, connection: Connection, keys: Sequence[JobKey], action: Action, actor: str) -> None:
        for queue, subjects in _subjects_by_queue(keys).items():
            if queue in self._histories:
                await self._histories[queue].record(connection, subjects, action, actor, self._now())

    def _describe(self, row: JobRow) -> JobDetails:
        state: JobState = "waiting"
        if row.parked:
            state = "parked"
        elif row.due_at <= self._now():
            state = "due"
        elif row.due_at == row.leased_until:
            state = "leased"
        return JobDetails(
            *(row.queue, row.subject, row.kind, row.system, state, row.due_at, row.attempts, row.last_error),
            *(row.created_at, row.parked and row.kind in CANCELLABLE_KINDS),
        )

    def _log(self, message: str, changed: Sequence[JobKey], actor: str) -> None:
        for key in changed:
            _logger.info(message, extra={"queue": key.queue, "subject": str(key.subject), "actor": actor})

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _subjects_by_queue(keys: Sequence[JobKey]) -> dict[str, list[UUID]]:
    subjects: dict[str, list[UUID]] = defaultdict(list)
    for key in sorted(set(keys)):
        subjects[key.queue].append(key.subject)
    return subjects


def _select_states(wanted: JobFilter) -> tuple[JobState, ...]:
    """Return the states that a filter leaves, in their sequence. Raises `Invalid` if it cannot leave any."""
    states = _FAILED_STATES if wanted.words else _AGED_STATES if wanted.min_age_s else _STATES
    if wanted.state is None:
        return states
    if wanted.words and wanted.state not in _FAILED_STATES:
        raise Invalid("error: only parked and failed jobs have errors; leave the state out, or give parked or failed")
    if wanted.min_age_s and wanted.state in ("leased", "waiting"):
        raise Invalid(f"min_age_s: a job that is {wanted.state} is not due; leave the state or the age out")
    return (wanted.state,)


def _position_of(state: JobState, row: JobRow) -> _Position:
    due_us = (row.due_at - _EPOCH) // timedelta(microseconds=1)
    if state in _FAILED_STATES:
        return _Position(state, row.queue, subject=row.subject)
    return _Position(state, row.queue, row.system, row.kind, due_us, row.subject)


def _explain_absence(key: JobKey) -> NoSuchJob:
    return NoSuchJob(f"there is no job of {key.subject} in the queue {key.queue}: it is done, or never was")


def _explain_no_retry(job: JobDetails) -> ProblemError:
    if job.state == "leased":
        return JobLeased(f"cannot retry {job.subject}: a worker does it now; repeat it in a moment")
    return JobNotFailed(f"cannot retry {job.subject}: it has not failed, it is to be done at {job.due_at:%F %T} UTC")


def _explain_no_cancel(job: JobDetails) -> ProblemError:
    if job.kind not in CANCELLABLE_KINDS:
        return JobNotCancellable(f"cannot cancel {job.kind} of {job.subject}: {explain_refusal(job.queue)}")
    return JobNotParked(f"cannot cancel {job.subject}: it is not given up; only a parked job can be cancelled")
