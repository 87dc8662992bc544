"""Jobs, and what a handler says about one that it has worked on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

INTERNAL_SYSTEM = "internal"
"""system of jobs that call no external system"""
NO_ANSWER = "no_answer"
"""result word of a job whose system gave no answer, or one that cannot be trusted"""


ERROR = "error"
"""result word of a job that failed for a defect of our own; it is tried again"""


class NewJob(NamedTuple):
    """A job to put into a queue. `subject` is the id of the business row."""

    subject: UUID
    kind: str
    system: str
    due_at: datetime


class Job(NamedTuple):
    """A claimed job. `attempts` includes this one; `leased_until` is the end of the claim."""

    queue: str
    subject: UUID
    kind: str
    system: str
    attempts: int
    leased_until: datetime


Step = Literal["written", "finish", "postpone", "delay", "fail", "park"]


class JobResult(NamedTuple):
    """The result word of a job, for metrics, and the step that its row takes."""

    word: str
    step: Step
    due_at: datetime | None = None
    kind: str | None = None
    error: str | None = None


def written(word: str) -> JobResult:
    """The handler has put or finished the job itself, in the transaction of the change."""
    return JobResult(word, "written")


def finished(word: str) -> JobResult:
    """Nothing is left to do."""
    return JobResult(word, "finish")


def postponed(word: str, due_at: datetime, kind: str | None = None) -> JobResult:
    """Nothing is wrong: repeat it at `due_at`, as another `kind` if given. The attempts start over."""
    return JobResult(word, "postpone", due_at, kind)


def delayed(word: str, error: str, due_at: datetime | None = None) -> JobResult:
    """The system answered that it does not do it now: repeat it at `due_at`, or after the longest backoff.

    However often that happens, it is no failure: the attempts start over and the job is never parked."""
    return JobResult(word, "delay", due_at, error=error)


def failed(word: str, error: str, not_before: datetime | None = None) -> JobResult:
    """Try again with backoff, not before a time if one is given; after `max_attempts` the job is parked."""
    return JobResult(word, "fail", not_before, error=error)


def parked(word: str, error: str) -> JobResult:
    """Given up: a person decides."""
    return JobResult(word, "park", error=error)


@dataclass(frozen=True, slots=True)
class JobHandler:
    """Does the jobs of one kind.

    `work` gets up to `jobs_per_call` of them and returns a result for each, in their sequence. It may raise
    `ExternalOutcomeUnknown`: then all of them have failed with `no_answer`. After an error of Postgres or Redis the
    jobs are claimed again when their lease ends. After any other exception they are done again one by one, and those
    that raise it have failed with `error`. With `max_attempts` None failures never park a job."""

    work: Callable[[Sequence[Job]], Awaitable[Sequence[JobResult]]]
    jobs_per_call: int = 1
    max_attempts: int | None = None


JobState = Literal["parked", "failed", "due", "leased", "waiting"]
"""`parked`: given up; `failed`: tried again; `leased`: a worker does it; `waiting`: due later"""


JobName = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[a-z0-9_.]+\Z")]
"""name of a queue, kind or system"""


class JobKey(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """The queue and the subject of a job: the id of a payment, shipment, order or release."""

    queue: JobName
    subject: UUID


class JobDetails(msgspec.Struct, frozen=True):
    """A job as staff see it, whose state is never `failed`: it has failed if it has a `last_error`.

    `due_at` is when it is to be done next; of a leased job the end of the lease, of a parked one about when it was
    given up. `order_id` is the order of its subject, if it is of a stored one. With `can_be_cancelled` staff may drop
    it."""

    queue: str
    subject: UUID
    kind: str
    system: str
    state: JobState
    due_at: datetime
    attempts: int
    last_error: str | None
    created_at: datetime
    can_be_cancelled: bool
    order_id: UUID | None = None

    @property
    def key(self) -> JobKey:
        return JobKey(self.queue, self.subject)


GroupName = tuple[str, str, str]
"""queue, system and kind"""


class GroupLoad(NamedTuple):
    """Numbers of parked and of due jobs of a group, and when the first that is not parked is due."""

    parked: int
    due: int
    first_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs staff want to see; None is any.

    `min_age_s` is for how long they have been due, or given up. All of `words`, in any case, occur in the error: then
    only parked and failed jobs are examined. With `order_id` only the jobs of that order are."""

    queue: str | None = None
    kind: str | None = None
    system: str | None = None
    state: JobState | None = None
    min_age_s: int = 0
    words: tuple[str, ...] = ()
    order_id: UUID | None = None


class RefusedJob(msgspec.Struct, frozen=True):
    """A job that was not changed, and the reason."""

    queue: str
    subject: UUID
    code: str
    detail: str


class JobChanges(msgspec.Struct, frozen=True):
    """Jobs that were changed, and jobs that were not."""

    changed: list[JobKey]
    refused: list[RefusedJob]
