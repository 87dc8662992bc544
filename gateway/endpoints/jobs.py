"""Jobs of all queues for staff. On the admin port."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.jobs.model import JobChanges, JobDetails, JobFilter, JobKey, JobName, JobState
from commerce.jobs.staff_jobs import CURSOR_PATTERN
from commerce.kernel.paging import Page
from commerce.orders.model import FULFILMENTS
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS
from commerce.shipping.shipment_tasks import SHIPMENTS
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.problems import Forbidden

_MAX_JOBS = 1_000
_WAREHOUSE_QUEUES = {SHIPMENTS, FULFILMENTS, RETURN_SHIPMENTS}
_Cursor = Annotated[str, msgspec.Meta(max_length=300, pattern=CURSOR_PATTERN)]
_QUEUE = Parameter(name="queue", location="path", type=JobName, description="the job's queue")
_SUBJECT = Parameter(
    name="subject", location="path", type=UUID, description="the id of the payment, refund, shipment or the like"
)
_FILTERS = (
    Parameter(name="queue", location="query", type=JobName, description="only of this queue, such as `payments`"),
    Parameter(name="kind", location="query", type=JobName, description="only of this kind, such as `shipment.book`"),
    Parameter(name="system", location="query", type=JobName, description="only jobs that call this system"),
    Parameter(name="state", location="query", type=JobState, description="only jobs in this state"),
    Parameter(
        name="min_age_s",
        location="query",
        type=Annotated[int, msgspec.Meta(ge=0, le=100_000_000)],
        description="only jobs that have been due, or parked, for so many seconds",
    ),
    Parameter(
        name="error",
        location="query",
        type=Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*\Z")],
        description="only parked and failed jobs in whose error all these words occur",
    ),
    Parameter(
        name="order_id",
        location="query",
        type=UUID,
        description="only those of this order and of its payments, refunds and shipments, by queue",
    ),
)


class JobSelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Jobs by queue and subject."""

    jobs: Annotated[list[JobKey], msgspec.Meta(min_length=1, max_length=_MAX_JOBS)]


async def list_jobs(call: Call) -> web.Response:
    """List jobs: parked ones first, then those that are due, in work, and waiting for their time.

    `failed` is for jobs that are tried again after an error. A page may be short, or empty, while `next` is not null.
    """
    parameters = call.parameters
    wanted = JobFilter(
        *(parameters["queue"], parameters["kind"], parameters["system"], parameters["state"]),
        min_age_s=parameters["min_age_s"] or 0,
        words=tuple((parameters["error"] or "").split()),
        order_id=parameters["order_id"],
    )
    return json_response(await call.services.jobs.list_jobs(wanted, parameters["cursor"], page_size(call)))


async def show_job(call: Call) -> web.Response:
    """Read a job with its whole error."""
    return json_response(await call.services.jobs.get(_key(call)))


async def retry_job(call: Call) -> web.Response:
    """Retry a parked or failed job, after its cause was fixed. A worker does it at once.

    The role `warehouse` may retry jobs of shipments and of orders to plan.
    """
    _require_retry(call, [_key(call)])
    return json_response(await call.services.jobs.retry_one(_key(call), call.staff_actor))


async def cancel_job(call: Call) -> web.Response:
    """Cancel a parked job whose kind allows it; its work stays undone. The answer is the job as it was."""
    return json_response(await call.services.jobs.cancel_one(_key(call), call.staff_actor))


async def retry_jobs(call: Call) -> web.Response:
    """Retry many parked or failed jobs. Those that cannot be retried are answered with the reason."""
    _require_retry(call, call.body.jobs)
    return json_response(await call.services.jobs.retry(call.body.jobs, call.staff_actor))


async def cancel_jobs(call: Call) -> web.Response:
    """Cancel many parked jobs. Those whose kind does not allow it are answered with the reason."""
    return json_response(await call.services.jobs.cancel(call.body.jobs, call.staff_actor))


def _require_retry(call: Call, keys: Sequence[JobKey]) -> None:
    """Raise `Forbidden` if a job is of a queue that the role does not cover."""
    others = {key.queue for key in keys} - _WAREHOUSE_QUEUES
    if others and call.identity.roles.isdisjoint(("support", "operator")):
        raise Forbidden(f"retrying jobs of {', '.join(sorted(others))} needs the role 'support'")


def _key(call: Call) -> JobKey:
    return JobKey(call.parameters["queue"], call.parameters["subject"])


_PATH = "/v1/admin/jobs"
_JOB_PATH = f"{_PATH}/{{queue}}/{{subject}}"
_operation = partial(Operation, tag="staff: jobs", access="support")
_change = partial(_operation, method="POST", is_one_transaction=True)
_JOB = {200: ("the job", JobDetails)}
_CHANGES = {200: ("the jobs that were changed, and those that were not", JobChanges)}

ADMIN = [
    _operation(
        method="GET",
        access="support_read",
        path=_PATH,
        handler=list_jobs,
        summary="List jobs",
        answers={200: ("a page", Page[JobDetails])},
        problems=(503,),
        also_for=("sales", "warehouse"),
        parameters=(*_FILTERS, cursor_parameter(_Cursor), LIMIT),
    ),
    _operation(
        method="GET",
        access="support_read",
        path=_JOB_PATH,
        handler=show_job,
        summary="Read a job",
        answers=_JOB,
        problems=(404, 503),
        also_for=("sales", "warehouse"),
        parameters=(_QUEUE, _SUBJECT),
    ),
    _change(
        path=f"{_JOB_PATH}/retry",
        handler=retry_job,
        also_for=("warehouse",),
        summary="Retry a job",
        answers=_JOB,
        problems=(404, 409, 503),
        parameters=(_QUEUE, _SUBJECT),
    ),
    _change(
        path=f"{_JOB_PATH}/cancel",
        handler=cancel_job,
        summary="Cancel a job",
        answers=_JOB,
        problems=(404, 409, 503),
        parameters=(_QUEUE, _SUBJECT),
    ),
    _change(
        path=f"{_PATH}/retry",
        handler=retry_jobs,
        also_for=("warehouse",),
        summary="Retry many jobs",
        answers=_CHANGES,
        problems=(503,),
        body=JobSelection,
    ),
    _change(
        path=f"{_PATH}/cancel",
        handler=cancel_jobs,
        summary="Cancel many jobs",
        answers=_CHANGES,
        problems=(503,),
        body=JobSelection,
    ),
]
