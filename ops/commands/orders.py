"""`floodgate order`: one customer's order, for those who answer the telephone."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money as show_money
from commerce.kernel.types import Reason
from commerce.orders.model import OrderDetails
from commerce.orders.service import Actor
from ops.commands.console import actor, out, run
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="One order: look at it, cancel it.", no_args_is_help=True)
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER")]
_WAIT_S = 5.0


@app.command()
def show(order_id: OrderId, json: Annotated[bool, typer.Option(help="all of it, with the address")] = False) -> None:
    """Show an order, its customer and all that happened to it, wherever it is at the moment."""

    async def work() -> OrderDetails:
        async with open_cli_services() as shop:
            return await shop.orders.show(order_id, await _sales(shop))

    found = run(work())
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print(found)


@app.command()
def cancel(
    order_id: OrderId,
    reason: Annotated[str, typer.Option(help="why; it is recorded, and the customer sees it")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Cancel an order that is not paid, for its customer. Its goods and the customer's limit go back in a moment."""
    if not yes:
        typer.confirm(f"Cancel order {order_id}?", abort=True)

    async def work() -> OrderDetails:
        try:
            why = msgspec.convert(reason, Reason)
        except msgspec.ValidationError as error:
            raise Invalid(f"--reason: {error}") from None
        async with open_cli_services() as shop:
            sales = await _sales(shop)
            await shop.orders.cancel(order_id, Actor(None, actor()), sales, _WAIT_S, why)
            return await shop.orders.show(order_id, sales)

    _print(run(work()))


async def _sales(shop: CliServices) -> list[str]:
    return [sale.sale_id for sale in await shop.sales.opened()]


def _print(found: OrderDetails) -> None:
    order = found.order
    table = Table(show_header=False)
    total = "?" if order.total is None else show_money(order.total.amount, order.total.currency)
    status = f"{order.status} ({order.cancel_reason})" if order.cancel_reason else order.status
    rows = (("order", order.order_id), ("customer", found.user_id or "?"), ("sale", order.sale_id), ("status", status))
    for name, value in (
        *rows,
        ("total", total),
        ("pay by (UTC)", order.pay_by and f"{order.pay_by:%Y-%m-%d %H:%M:%S}"),
    ):
        table.add_row(name, str(value or "?"))
    for line in order.lines or ():
        table.add_row(f"line {line.line_no}", f"{line.quantity} {line.sku}")
    out.print(table)
    events = Table("at (UTC)", "status", "who", "why")
    for event in found.events:
        events.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", event.status, event.actor, event.reason)
    out.print(events)
