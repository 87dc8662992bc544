"""`floodgate dead-letters`: accepted orders that could not be stored."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from commerce.dead_letters.model import DeadLetter
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    list_all,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Resolve accepted orders that could not be stored.", no_args_is_help=True)
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER", help="the order's id")]
_PAGE_SIZE = 1_000


@app.command("list")
def list_dead_letters(
    resolved: Annotated[bool, typer.Option("--all", help="list those that are resolved, too")] = False,
    json: JsonOption = False,
) -> None:
    """List the dead letters that wait for a decision."""

    async def work() -> list[DeadLetter]:
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.dead_letters.list_letters(UUID(cursor) if cursor else None, _PAGE_SIZE, resolved)
            )

    letters = run(work())
    if json:
        print_json(letters)
        return
    table = Table("order", "sale", "user", "status", "died (UTC)", "reason")
    for letter in letters:
        table.add_row(
            str(letter.order_id),
            letter.sale_id,
            letter.user_id or "?",
            letter.status,
            format_time(letter.died_at),
            letter.error,
        )
    print_table(table, "no dead letters")


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

    print_line(f"{run_change(work()).order_id} is stored")


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

    print_line(f"{run_change(work()).order_id} is discarded; its stock is released in a moment")
