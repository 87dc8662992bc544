"""Commands of `floodgate sale` that change or delete sales and their items."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from msgspec import UNSET

from commerce.kernel.money import format_money, parse_money
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sale_changes.model import ChangedSale
from commerce.sales.model import MAX_UNITS, Sale, SaleState
from commerce.waiting_rooms.errors import NoRoom
from lua import SaleKeys, read_loaded_epoch
from ops.commands.console import (
    JsonOption,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_warning,
    run_change,
)
from ops.commands.moment_arguments import format_clocks, read_moment
from ops.services import CliServices, open_cli_services

app = typer.Typer()
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id, such as double-11")]
Sku = Annotated[str, typer.Argument(metavar="SKU")]
TIME_HELP = "`now` or ISO 8601; without a zone: by the shop's clock (`shop.time_zone`)"
_LOST = "not loaded: see `floodgate rebuild`"


@app.command()
def change(
    sale_id: SaleId,
    title: Annotated[str | None, typer.Option()] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217; of a draft without items")] = None,
    opens: Annotated[
        datetime | None, typer.Option(parser=read_moment, metavar="TIME", help="of a draft, as for `sale create`")
    ] = None,
    closes: Annotated[datetime | None, typer.Option(parser=read_moment, metavar="TIME", help=TIME_HELP)] = None,
    never_closes: Annotated[bool, typer.Option("--never-closes", help="remove the end")] = False,
    pay_within: Annotated[int | None, typer.Option(help="seconds until an unpaid order expires")] = None,
    json: JsonOption = False,
) -> None:
    """Change a draft, or the title, the end and the time to pay of an opened sale.

    A value that is left out stays as it is. Redis is the judge of the end: a new one holds as soon as Redis has it, and
    nothing opens again what is over. Orders that were accepted keep their time to pay.
    """
    if closes is not None and never_closes:
        raise typer.BadParameter("--closes and --never-closes exclude each other; give one of them")
    values = {
        "title": title,
        "currency": currency,
        "opens_at": opens,
        "closes_at": closes,
        "pay_within_s": pay_within,
    }
    changed: dict[str, object] = {name: value for name, value in values.items() if value is not None}
    if never_closes:
        changed["closes_at"] = None
    if not changed:
        raise typer.BadParameter(
            "there is nothing to change; give --title, --currency, --opens, --closes, --never-closes or --pay-within"
        )

    async def work() -> Sale:
        changes = parse_argument(changed, ChangedSale)
        async with open_cli_services() as shop:
            sale = await shop.sale_changes.change(sale_id, changes, get_actor())
            await warn_if_not_in_redis(shop, sale_id)
            await _tell_end_of_list(shop, sale)
            return sale

    sale = run_change(work())
    if json:
        print_json(sale)
        return
    print_line(f"{sale_id}: {sale.title}, in {sale.currency}, to be paid within {sale.pay_within_s} s")
    print_line(f"opens: {format_clocks(sale.opens_at)}")
    print_line(f"closes: {format_clocks(sale.closes_at)}")


async def _tell_end_of_list(shop: CliServices, sale: Sale) -> None:
    """Tell that a draft's waiting room closes its list before the opening, which it does not follow."""
    try:
        room = await shop.rooms.get(sale.sale_id)
    except NoRoom:
        return
    if sale.state is SaleState.DRAFT and room.mode == "on" and room.list_closes_at < sale.opens_at:
        closes = format_clocks(room.list_closes_at)
        print_detail(f"the list of its waiting room closes {closes}; `floodgate room set --list-closes-at` moves it")


@app.command()
def delete(sale_id: SaleId, json: JsonOption = False) -> None:
    """Delete a draft with its items, its wait-list and its waiting room, which must be off."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.sale_changes.delete(sale_id, get_actor())

    run_change(work())
    if json:
        print_json({"sale_id": sale_id, "deleted": True})
    else:
        print_line(f"{sale_id} is deleted")


@app.command("remove-item")
def remove_item(sale_id: SaleId, sku: Sku, json: JsonOption = False) -> None:
    """Remove an item of a draft."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.sale_changes.remove_item(sale_id, sku, get_actor())

    run_change(work())
    if json:
        print_json({"sale_id": sale_id, "sku": sku, "removed": True})
    else:
        print_line(f"{sale_id} does not offer {sku} any more")


@app.command("change-item")
def change_item(
    sale_id: SaleId,
    sku: Sku,
    price: Annotated[str | None, typer.Option(help="such as 2.55")] = None,
    limit_per_user: Annotated[int | None, typer.Option(min=1, help="maximum units per user")] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="remove the limit per user")] = False,
    units: Annotated[int | None, typer.Option(min=0, max=MAX_UNITS, help="stock at opening, of a draft")] = None,
) -> None:
    """Change an item's price, limit per user, or both, also while the sale is open.

    A value that is left out stays as it is.
    """
    if limit_per_user is not None and no_limit:
        raise typer.BadParameter("--limit-per-user and --no-limit exclude each other; give one of them")
    if price is None and limit_per_user is None and units is None and not no_limit:
        raise typer.BadParameter("there is nothing to change; give --price, --limit-per-user, --no-limit or --units")

    async def work() -> str:
        async with open_cli_services() as shop:
            currency = (await shop.sales.get(sale_id)).currency
            new_price = UNSET if price is None else parse_money(price, currency)
            new_limit = None if no_limit else UNSET if limit_per_user is None else limit_per_user
            new_units = UNSET if units is None else units
            item = await shop.sales.change_item(sale_id, sku, new_price, new_limit, get_actor(), new_units)
            await warn_if_not_in_redis(shop, sale_id)
            limit = item.limit_per_user or "none"
            return f"{item.sku}: {format_money(item.price, currency)}, limit per user {limit}"

    print_line(run_change(work()))


async def warn_if_not_in_redis(shop: CliServices, sale_id: str) -> None:
    """Warn if a change of a sale is not in Redis yet, and print what will bring it there."""
    sale = await shop.sales.get(sale_id)
    is_published = sale.is_loaded and sale.published_generation == sale.generation
    if sale.epoch == 0:  # a draft is not in Redis
        return
    if await read_redis_state(shop, sale) == _LOST:
        text = (
            f"Redis does not have {sale_id}: its orders are refused with not_ready until "
            f"`floodgate rebuild {sale_id}`. Find out first why it is missing"
        )
        print_warning(text)
    elif not is_published:
        print_warning("the change is not in Redis yet; the worker sale_sync brings it there")


async def read_redis_state(shop: CliServices, sale: Sale) -> str:
    """Return in words whether Redis has the sale."""
    try:
        epoch = await read_loaded_epoch(shop.redis, SaleKeys(sale.sale_id))
    except REDIS_UNAVAILABLE:
        return "Redis does not answer"
    if epoch == sale.epoch:
        return "loaded"
    return _LOST if sale.is_loaded else "being loaded"
