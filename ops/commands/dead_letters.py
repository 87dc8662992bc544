"""`floodgate dead-letters`: accepted orders that could not be stored."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table

from commerce.dead_letters.model import DeadLetter
from ops.commands.console import actor, out, run
from ops.services import open_cli_services

app = typer.Typer(help="Accepted orders that could not be written.", no_args_is_help=True)
_PAGE = 1_000
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER")]


@app.command("list")
def list_letters(resolved: Annotated[bool, typer.Option("--all", help="also those dealt with")] = False) -> None:
    """List those that wait for a decision."""

    async def work() -> list[DeadLetter]:
        async with open_cli_services() as shop:
            return (await shop.dead_letters.page(None, _PAGE, resolved)).items

    found = run(work())
    table = Table("order", "sale", "user", "status", "died (UTC)", "why")
    for letter in found:
        died = f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(
            str(letter.order_id), letter.sale_id, letter.user_id or "?", letter.status, died, letter.error[:80]
        )
    out.print(table if found else "no dead letters")


@app.command("show")
def show_letter(order_id: OrderId) -> None:
    """Show one, with the order it holds. This prints the customer's address."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.show(order_id)

    typer.echo(msgspec.json.format(msgspec.json.encode(run(work())), indent=2).decode())


@app.command("retry")
def retry_letter(order_id: OrderId) -> None:
    """Write the order now, after what stood in its way was mended."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.retry(order_id, actor())

    out.print(f"{run(work()).order_id} is written", highlight=False)


@app.command("discard")
def discard_letter(order_id: OrderId, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Give the order up: its goods and limit go back, and its owner sees it as cancelled."""
    if not yes:
        typer.confirm(f"Give up order {order_id}, which its customer was promised?", abort=True)

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.discard(order_id, actor())

    out.print(f"{run(work()).order_id} is discarded; its goods go back in a moment", highlight=False)
