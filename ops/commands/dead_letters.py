"""`floodgate dead-letters`: accepted orders that could not be stored."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table

from commerce.dead_letters.model import DeadLetter
from ops.commands.console import format_time, get_actor, out, print_json, run
from ops.services import open_cli_services

app = typer.Typer(help="Resolve accepted orders that could not be stored.", no_args_is_help=True)
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER", help="the order's id")]
_PAGE_SIZE = 1_000
_MAX_ERROR_LENGTH = 80


@app.command("list")
def list_dead_letters(
    resolved: Annotated[bool, typer.Option("--all", help="list those that are resolved, too")] = False,
) -> None:
    """List the dead letters that wait for a decision."""

    async def work() -> list[DeadLetter]:
        async with open_cli_services() as shop:
            return (await shop.dead_letters.list_letters(None, _PAGE_SIZE, resolved)).items

    letters = run(work())
    table = Table("order", "sale", "user", "status", "died (UTC)", "reason")
    for letter in letters:
        table.add_row(
            str(letter.order_id),
            letter.sale_id,
            letter.user_id or "?",
            letter.status,
            format_time(letter.died_at),
            letter.error[:_MAX_ERROR_LENGTH],
        )
    out.print(table if letters else "no dead letters")


@app.command("show")
def show_dead_letter(order_id: OrderId) -> None:
    """Show a dead letter with its order. Prints the customer's address."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.get(order_id)

    print_json(run(work()))


@app.command("retry")
def retry_dead_letter(order_id: OrderId) -> None:
    """Store the order now, after the cause was fixed."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.retry(order_id, get_actor())

    out.print(f"{run(work()).order_id} is stored", highlight=False)


@app.command("discard")
def discard_dead_letter(
    order_id: OrderId, yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False
) -> None:
    """Discard the order: its stock and limit are released, and its customer sees it as cancelled."""
    if not yes:
        typer.confirm(f"Discard order {order_id}, which its customer was promised?", abort=True)

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.discard(order_id, get_actor())

    out.print(f"{run(work()).order_id} is discarded; its stock is released in a moment", highlight=False)
