"""`floodgate jobs`: list, show, retry and cancel jobs of all queues."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, get_args
from uuid import UUID

import typer

from commerce.jobs.model import JobChanges, JobDetails, JobFilter, JobKey, JobState, RefusedJob
from commerce.jobs.staff_jobs import StaffJobs
from ops.commands.console import (
    JsonOption,
    fail,
    format_time,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(
    help="Show and resolve jobs: payments, refunds, shipments, orders to ship, releases, stock changes.",
    no_args_is_help=True,
)
_PAGE_SIZE = 500
_MAX_PRINTED = 50
_STATES = ", ".join(get_args(JobState))
Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="such as payments; `jobs list` shows it")]
Subject = Annotated[UUID, typer.Argument(metavar="ID", help="the id of the payment, shipment, ...")]
OptionalQueue = Annotated[str | None, typer.Argument(metavar="[QUEUE", help="with ID: this job only")]
OptionalSubject = Annotated[UUID | None, typer.Argument(metavar="ID]", help="the id of the payment, shipment, ...")]
QueueOption = Annotated[str | None, typer.Option("--queue", help="only of this queue")]
KindOption = Annotated[str | None, typer.Option("--kind", help="only of this kind, such as shipment.book")]
SystemOption = Annotated[str | None, typer.Option("--system", help="only of this system, such as alipay")]
StateOption = Annotated[str | None, typer.Option("--state", help=f"only {_STATES}")]
AgeOption = Annotated[int, typer.Option("--min-age", min=0, metavar="SECONDS", help="due or parked for so long")]
ErrorOption = Annotated[str | None, typer.Option("--error", help="all these words occur in the error")]
OrderOption = Annotated[UUID | None, typer.Option("--order", metavar="ORDER", help="only of this order")]
TopOption = Annotated[int, typer.Option(min=1, max=100_000, help="so many at the highest")]
YesOption = Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")]
Change = Callable[[StaffJobs, Sequence[JobKey], str], Awaitable[JobChanges]]


@app.command("list")
def list_jobs(
    queue: QueueOption = None,
    kind: KindOption = None,
    system: SystemOption = None,
    state: StateOption = None,
    min_age: AgeOption = 0,
    error: ErrorOption = None,
    order: OrderOption = None,
    top: TopOption = 100,
    json: JsonOption = False,
) -> None:
    """List jobs: parked ones first, then those that are due, in work, and waiting for their time."""
    jobs, is_complete = _select(queue, kind, system, state, min_age, error, order, top)
    if json:
        print_json(jobs)
    else:
        _print_jobs(jobs)
    if not is_complete:
        print_detail(f"there are more; --top shows more than {top}")


@app.command()
def show(queue: Queue, subject: Subject, json: JsonOption = False) -> None:
    """Show a job with its whole error."""

    async def work() -> JobDetails:
        async with open_cli_services() as shop:
            return await shop.jobs.get(JobKey(queue, subject))

    job = run(work())
    if json:
        print_json(job)
    else:
        print_values(_describe(job))


@app.command()
def retry(
    queue_argument: OptionalQueue = None,
    subject: OptionalSubject = None,
    queue: QueueOption = None,
    kind: KindOption = None,
    system: SystemOption = None,
    state: StateOption = "parked",
    min_age: AgeOption = 0,
    error: ErrorOption = None,
    order: OrderOption = None,
    top: TopOption = 10_000,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Retry a job after its cause was fixed, or all parked ones that fit the options.

    Workers do them at once.
    """
    if queue_argument is not None:
        _change_one(queue_argument, subject, StaffJobs.retry_one, "is due again", json)
        return
    jobs, is_complete = _select(queue, kind, system, state, min_age, error, order, top)
    _change_all(jobs, is_complete, StaffJobs.retry, "Retry", yes, json)


@app.command()
def cancel(
    queue_argument: OptionalQueue = None,
    subject: OptionalSubject = None,
    queue: QueueOption = None,
    kind: KindOption = None,
    system: SystemOption = None,
    min_age: AgeOption = 0,
    error: ErrorOption = None,
    order: OrderOption = None,
    top: TopOption = 10_000,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Cancel a parked job, or all that fit the options, whose kind allows it: the work stays undone."""
    if queue_argument is not None:
        if not yes:
            typer.confirm(f"Cancel the job of {subject}, and leave its work undone?", abort=True)
        _change_one(queue_argument, subject, StaffJobs.cancel_one, "is cancelled", json)
        return
    jobs, is_complete = _select(queue, kind, system, "parked", min_age, error, order, top)
    _change_all(jobs, is_complete, StaffJobs.cancel, "Cancel", yes, json)


def _select(
    queue: str | None,
    kind: str | None,
    system: str | None,
    state: str | None,
    min_age: int,
    error: str | None,
    order_id: UUID | None,
    top: int,
) -> tuple[list[JobDetails], bool]:
    """Return up to `top` jobs that fit, and whether these are all."""

    async def work() -> tuple[list[JobDetails], bool]:
        message = f"--state: choose one of {_STATES}"
        wanted_state = None if state is None else parse_argument(state, JobState, message)  # type: ignore[arg-type]
        wanted = JobFilter(queue, kind, system, wanted_state, min_age, tuple((error or "").split()), order_id)
        jobs: list[JobDetails] = []
        cursor: str | None = None
        async with open_cli_services() as shop:
            while True:
                page = await shop.jobs.list_jobs(wanted, cursor, min(_PAGE_SIZE, top - len(jobs)))
                jobs += page.items
                cursor = page.next
                if cursor is None or len(jobs) >= top:
                    return jobs, cursor is None

    return run(work())


def _change_one(
    queue: str,
    subject: UUID | None,
    change: Callable[[StaffJobs, JobKey, str], Awaitable[JobDetails]],
    outcome: str,
    json: bool,
) -> None:
    if subject is None:
        fail("cannot tell which job: give QUEUE and ID, or options such as --queue")
    key = JobKey(queue, subject)

    async def work() -> JobDetails:
        async with open_cli_services() as shop:
            return await change(shop.jobs, key, get_actor())

    job = run_change(work())
    if json:
        print_json(job)
    else:
        print_line(f"{job.kind} of {job.subject} {outcome}")


def _change_all(
    jobs: Sequence[JobDetails], is_complete: bool, change: Change, verb: str, is_confirmed: bool, json: bool
) -> None:
    """Change these jobs page by page, after a preview that counts them."""
    if not json or not is_confirmed:
        counts: dict[tuple[str, str], int] = {}
        for job in jobs:
            counts[job.kind, job.system] = counts.get((job.kind, job.system), 0) + 1
        for (kind, system), count in sorted(counts.items()):
            print_detail(f"{count} {kind} ({system})")
        if not is_complete:
            print_detail("there are more; repeat the command, or raise --top")
    if jobs and not is_confirmed:
        typer.confirm(f"{verb} {len(jobs)} jobs?", abort=True, err=True)

    async def work() -> JobChanges:
        changed: list[JobKey] = []
        refused: list[RefusedJob] = []
        async with open_cli_services() as shop:
            for at in range(0, len(jobs), _PAGE_SIZE):
                changes = await change(shop.jobs, [job.key for job in jobs[at : at + _PAGE_SIZE]], get_actor())
                changed += changes.changed
                refused += changes.refused
        return JobChanges(changed, refused)

    changes = run_change(work())
    if json:
        print_json(changes)
        return
    for problem in changes.refused[:_MAX_PRINTED]:
        print_detail(problem.detail)
    print_line(f"{len(changes.changed)} jobs changed, {len(changes.refused)} refused")


def _print_jobs(jobs: Sequence[JobDetails]) -> None:
    # One column for both ids: side by side they leave no room for the error.
    table = Table("queue", "id, its order", "kind", "system", "state", "due (UTC)", "attempts", "error")
    table.columns[1].no_wrap = True  # to be copied whole
    for job in jobs:
        ids = f"{job.subject}\n{job.order_id or ''}"
        table.add_row(
            *(job.queue, ids, job.kind, job.system, job.state, format_time(job.due_at)),
            *(str(job.attempts), job.last_error or ""),
        )
    print_table(table, "no job fits")


def _describe(job: JobDetails) -> list[tuple[str, object]]:
    return [
        ("queue", job.queue),
        ("id", job.subject),
        ("order", job.order_id or "none"),
        ("kind", job.kind),
        ("system", job.system),
        ("state", job.state),
        ("due (UTC)", format_time(job.due_at)),
        ("attempts", job.attempts),
        ("created (UTC)", format_time(job.created_at)),
        ("error", job.last_error or "none"),
        ("can be cancelled", "yes" if job.can_be_cancelled else "no"),
    ]
