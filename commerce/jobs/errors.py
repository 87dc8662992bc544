"""Errors of jobs."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchJob(NotFound):
    title = "There is no such job"


class JobLeased(Conflict):
    code = "job_leased"
    title = "A worker does the job now"


class JobNotFailed(Conflict):
    code = "job_not_failed"
    title = "The job has not failed"


class JobNotParked(Conflict):
    code = "job_not_parked"
    title = "The job is not parked"


class JobNotCancellable(Conflict):
    code = "job_not_cancellable"
    title = "A job of this kind cannot be cancelled"
