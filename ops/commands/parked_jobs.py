"""`floodgate parked-jobs`: payments and refunds that are no longer retried automatically."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.money import format_money
from commerce.payments.errors import NoSuchParkedJob
from commerce.payments.model import OrderPayments, ParkedJob
from ops.commands.console import JsonOption, print_json, print_line, print_table, print_values, run, run_change
from ops.commands.payments import print_payments
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(
    help="Resolve parked payments and refunds only. Shipments: `floodgate shipment list --worklist parked`.",
    no_args_is_help=True,
)
JobId = Annotated[UUID, typer.Argument(metavar="ID", help="id of a payment or a refund")]


@app.command("list")
def list_jobs(json: JsonOption = False) -> None:
    """List the parked payments and refunds by order.

    Parked shipments: `floodgate shipment list --worklist parked`. Releases and stock changes are not listed here.
    """

    async def work() -> list[ParkedJob]:
        async with open_cli_services() as shop:
            return await shop.payments.list_parked_jobs()

    jobs = run(work())
    if json:
        print_json(jobs)
        return
    table = Table("kind", "id", "method", "amount", "reason")
    table.columns[1].no_wrap = True  # to be copied whole
    for job in jobs:
        table.add_row(
            job.kind, str(job.id), job.method, format_money(job.amount.amount, job.amount.currency), job.reason
        )
    print_table(table, "no payment or refund is parked")


@app.command()
def show(job_id: JobId, json: JsonOption = False) -> None:
    """Show a parked job with its whole reason and its order's payments."""

    async def work() -> tuple[ParkedJob, OrderPayments]:
        async with open_cli_services() as shop:
            for job in await shop.payments.list_parked_jobs():
                if job.id == job_id:
                    return job, await shop.payments.get(job.order_id, None)
        raise NoSuchParkedJob(
            f"cannot show {job_id}: no payment or refund with this id is parked; see `floodgate parked-jobs list`"
        )

    job, order_payments = run(work())
    if json:
        print_json({"job": job, "order": order_payments})
        return
    print_values(
        (
            (job.kind, job.id),
            ("order", job.order_id),
            ("method", job.method),
            ("amount", format_money(job.amount.amount, job.amount.currency)),
            ("task", job.task),
            ("attempts", job.attempts),
            ("reason", job.reason),
        )
    )
    print_payments(order_payments)


@app.command()
def retry(job_id: JobId) -> None:
    """Retry a parked job, after the cause was fixed. A payment worker does it."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.payments.retry_parked_job(job_id)

    run_change(work())
    print_line(f"{job_id} is due again")
