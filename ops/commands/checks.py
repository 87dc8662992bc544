"""`floodgate audit`, `rebuild` and `dead-letters`: is everything as promised, and what to do if not."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table

from commerce.audit.model import SaleAudit, StockRow
from commerce.dead_letters.model import DeadLetter
from commerce.sales.loading import LoadReport, load_sale
from ops.commands.console import actor, err, out, run
from ops.services import open_cli_services

letters = typer.Typer(help="Accepted orders that could not be written.", no_args_is_help=True)
_PAGE = 1_000
_COLUMNS = ("initial", "available", "held", "sold", "in_stream", "difference")
_PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER")]


def audit(
    sale: Annotated[str | None, typer.Argument(help="left out: all sales that were opened")] = None,
    by_sku: Annotated[bool, typer.Option(help="a row for each SKU, not only for those with a difference")] = False,
    json: Annotated[bool, typer.Option(help="JSON instead of a table")] = False,
) -> None:
    """Check the promises P1 to P8 over Redis, the stream, the dead letters and Postgres.

    Works while orders flow. Status 1 if anything is not as promised.
    """

    async def work() -> list[SaleAudit]:
        async with open_cli_services() as shop:
            names = [sale] if sale else [found.sale_id for found in await shop.sales.opened()]
            return [await shop.audit.audit_sale(name) for name in names]

    audits = run(work())
    if json:
        typer.echo(msgspec.json.encode(audits).decode())
    else:
        _print(audits, by_sku)
    if not all(found.clean for found in audits):
        raise typer.Exit(1)


def _print(audits: list[SaleAudit], by_sku: bool) -> None:
    table = Table("sale", "SKU", *(name.replace("_", " ") for name in _COLUMNS))
    for name in table.columns[2:]:
        name.justify = "right"
    for found in audits:
        _row(table, found.sale_id, found.total)
        for row in found.rows:
            if by_sku or row.difference:
                _row(table, "", row)
    out.print(table)
    for found in audits:
        verdict = "as promised" if found.clean else "NOT as promised"
        out.print(f"{found.sale_id}: {found.orders} orders, {', '.join(_PROMISES)} {verdict}", highlight=False)
        for finding in found.findings:
            examples = ", ".join(finding.examples)
            err.print(
                f"  {finding.promise}: {finding.detail}: {finding.count} ({examples})", highlight=False, markup=False
            )
        for note in found.notes:
            out.print(f"  note: {note}", highlight=False)


def _row(table: Table, sale_id: str, row: StockRow) -> None:
    table.add_row(sale_id, row.sku, *(str(getattr(row, name)) for name in _COLUMNS))


def rebuild(sale: Annotated[str, typer.Argument(help="the sale's id")]) -> None:
    """Load a sale's stock, limits and keys into Redis anew, from Postgres and what is still in the stream.

    For a Redis that lost its data. Until it is done, orders get `not_ready`.
    """

    async def work() -> LoadReport:
        async with open_cli_services() as shop:
            return await load_sale(shop.db, shop.redis, shop.clock, sale)

    done = run(work())
    out.print(
        f"{done.sale_id} is loaded (load {done.epoch}): {done.skus} SKUs, {done.units_free} units free, "
        f"{done.waiting_orders} orders still in the stream",
        highlight=False,
    )
    if done.resolved_jobs:
        out.print(f"{done.resolved_jobs} releases and stock changes that were too old for Redis are settled")


@letters.command("list")
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


@letters.command("show")
def show_letter(order_id: OrderId) -> None:
    """Show one, with the order it holds. This prints the customer's address."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.show(order_id)

    typer.echo(msgspec.json.format(msgspec.json.encode(run(work())), indent=2).decode())


@letters.command("retry")
def retry_letter(order_id: OrderId) -> None:
    """Write the order now, after what stood in its way was mended."""

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.retry(order_id, actor())

    out.print(f"{run(work()).order_id} is written", highlight=False)


@letters.command("discard")
def discard_letter(order_id: OrderId, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Give the order up: its goods and limit go back, and its owner sees it as cancelled."""
    if not yes:
        typer.confirm(f"Give up order {order_id}, which its customer was promised?", abort=True)

    async def work() -> DeadLetter:
        async with open_cli_services() as shop:
            return await shop.dead_letters.discard(order_id, actor())

    out.print(f"{run(work()).order_id} is discarded; its goods go back in a moment", highlight=False)
