"""`floodgate sale`: sales and their stock."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from msgspec import UNSET
from rich.table import Table

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money as show_money
from commerce.kernel.money import parse_money
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sales.item_csv import read_items
from commerce.sales.model import Sale, SaleInput, SaleState, StockChange, StockChangeInput
from lua import SaleKeys, loaded_epoch, units_free
from ops.commands.console import actor, err, out, run
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Sales and their stock.", no_args_is_help=True)
SaleName = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id, such as double-11")]
_PAGE = 1_000
_LOST = "not loaded: see `floodgate rebuild`"


def _moment(text: str) -> datetime:
    """`now`, or ISO 8601; without a zone it is UTC."""
    if text == "now":
        return datetime.now(UTC).replace(microsecond=0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither `now` nor a time like 2026-11-11T00:00:00+08:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@app.command()
def create(
    sale_id: SaleName,
    items: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="CSV: sku, units, and if wanted price and limit")
    ],
    title: Annotated[str, typer.Option()],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as CNY")],
    opens: Annotated[datetime, typer.Option(parser=_moment, metavar="TIME", help="`now` or ISO 8601")] = "now",  # type: ignore[assignment]
    closes: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="TIME", help="left out: it never closes")
    ] = None,
    pay_within: Annotated[int, typer.Option(help="seconds until an unpaid order expires")] = 900,
) -> None:
    """Make a draft of a sale. All lines of the items file must be right, or nothing is made."""

    async def work() -> Sale:
        sale = msgspec.convert(
            {
                "sale_id": sale_id,
                "title": title,
                "currency": currency,
                "opens_at": opens,
                "closes_at": closes,
                "pay_within_s": pay_within,
            },
            SaleInput,
        )
        offered = read_items(items, currency)
        async with open_cli_services() as shop:
            return await shop.sales.create(sale, offered, actor())

    try:
        sale = run(work())
    except msgspec.ValidationError as error:
        raise typer.BadParameter(str(error)) from None
    out.print(f"made {sale.sale_id}, a draft: open it with `floodgate sale open {sale.sale_id}`", highlight=False)


@app.command("open")
def open_(sale_id: SaleName) -> None:
    """Load a draft's stock and take orders from its opening time on; or go on with a paused sale."""
    _step(sale_id, "open")


@app.command()
def pause(sale_id: SaleName) -> None:
    """Take no orders until it is opened again."""
    _step(sale_id, "pause")


@app.command()
def close(sale_id: SaleName) -> None:
    """End a sale for good."""
    _step(sale_id, "close")


def _step(sale_id: str, step: str) -> None:
    async def work() -> Sale:
        async with open_cli_services() as shop:
            sale = await {"open": shop.sales.open, "pause": shop.sales.pause, "close": shop.sales.close}[step](
                sale_id, actor()
            )
            await _warn(shop, sale_id)
            return sale

    sale = run(work())
    out.print(f"{sale.sale_id} is {sale.state}", highlight=False)


async def _warn(shop: CliServices, sale_id: str) -> None:
    """Say so if Redis does not know all of a sale that was changed, and who will see to it."""
    sale = await shop.sales.get(sale_id)
    known = sale.loaded and sale.published_generation == sale.generation
    if sale.epoch and await _in_redis(shop, sale) == _LOST:
        text = (
            f"Redis does not have {sale_id}: its orders get not_ready until `floodgate rebuild {sale_id}` was run. "
            "Find out first why it is gone"
        )
        err.print(text, style="yellow", soft_wrap=True, highlight=False)
    elif not known:
        err.print("Redis could not be told yet; the sale keeper will do it as soon as it can", style="yellow")


async def _in_redis(shop: CliServices, sale: Sale) -> str:
    try:
        epoch = await loaded_epoch(shop.redis, SaleKeys(sale.sale_id))
    except REDIS_UNAVAILABLE:
        return "it does not answer"
    if epoch == sale.epoch:
        return "loaded"
    return _LOST if sale.loaded else "a load is under way"


@app.command()
def terms(
    sale_id: SaleName,
    sku: str,
    price: Annotated[str | None, typer.Option(help="as in 2.55")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="units a user may buy")] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="take the limit away")] = False,
) -> None:
    """Set an item's price or limit or both, also while the sale runs. What is not given stays as it is."""
    if limit is not None and no_limit:
        raise typer.BadParameter("--limit and --no-limit cannot both be")
    if price is None and limit is None and not no_limit:
        raise typer.BadParameter("give --price, --limit or --no-limit")

    async def work() -> str:
        async with open_cli_services() as shop:
            currency = (await shop.sales.get(sale_id)).currency
            new_price = UNSET if price is None else parse_money(price, currency)
            new_limit = None if no_limit else UNSET if limit is None else limit
            item = await shop.sales.change_item(sale_id, sku, new_price, new_limit, actor())
            await _warn(shop, sale_id)
            return f"{item.sku}: {show_money(item.price, currency)}, limit {item.limit_per_user or 'none'}"

    out.print(run(work()), highlight=False)


@app.command("items")
def put_items(
    sale_id: SaleName,
    items: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.csv", help="as for `floodgate sale create`")
    ],
) -> None:
    """Set items of a draft, or add new ones to an open sale. All lines of the file must be right, or nothing is done.

    To an open sale they come with 0 units: `floodgate sale restock` brings the stock.
    """

    async def work() -> Sale:
        async with open_cli_services() as shop:
            offered = read_items(items, (await shop.sales.get(sale_id)).currency)
            if not offered:
                raise Invalid(f"{items} lists nothing")
            await shop.sales.put_items(sale_id, offered, actor())
            await _warn(shop, sale_id)
            out.print(f"{len(offered)} items of {sale_id} are set", highlight=False)
            return await shop.sales.get(sale_id)

    sale = run(work())
    if sale.state is not SaleState.DRAFT:
        out.print(f"bring their stock with `floodgate sale restock {sale_id} SKU UNITS --reason …`", highlight=False)


@app.command()
def restock(
    sale_id: SaleName,
    sku: str,
    delta: Annotated[int, typer.Argument(help="units that come, or with a minus go: -- -5")],
    reason: Annotated[str, typer.Option(help="why; it is recorded")],
    change_id: Annotated[UUID | None, typer.Option(help="repeat a change whose outcome is not known")] = None,
) -> None:
    """Change the stock of a running sale. Free units can be taken away, never those of orders."""

    async def work() -> StockChange:
        async with open_cli_services() as shop:
            change = msgspec.convert({"sku": sku, "delta": delta, "reason": reason}, StockChangeInput)
            return await shop.stock.change(sale_id, change_id or shop.ids.new(), change, actor())

    try:
        change = run(work())
    except msgspec.ValidationError as error:
        raise typer.BadParameter(str(error)) from None
    out.print(f"{change.sku} {change.delta:+d}: {change.status} (change {change.change_id})", highlight=False)


@app.command()
def show(sale_id: SaleName, items: Annotated[bool, typer.Option(help="list what it offers")] = False) -> None:
    """Show a sale's state and times, and with --items what it offers and what is free."""
    out.print(run(_shown(sale_id, items)))


@app.command("list")
def list_() -> None:
    """List all sales."""

    async def work() -> Table:
        async with open_cli_services() as shop:
            sales = (await shop.sales.list_sales(None, _PAGE, drafts=True)).items
        table = Table("sale", "title", "state", "opens (UTC)", "closes (UTC)")
        for sale in sales:
            table.add_row(sale.sale_id, sale.title, sale.state, _time(sale.opens_at), _time(sale.closes_at))
        return table

    out.print(run(work()))


async def _shown(sale_id: str, with_items: bool) -> Table:
    async with open_cli_services() as shop:
        sale = await shop.sales.get(sale_id)
        if with_items:
            return await _items(shop, sale)
        in_redis = await _in_redis(shop, sale) if sale.epoch else "not opened yet"
    table = Table(show_header=False)
    for name, value in (
        ("sale", sale.sale_id),
        ("title", sale.title),
        ("state", sale.state),
        ("opens (UTC)", _time(sale.opens_at)),
        ("closes (UTC)", _time(sale.closes_at)),
        ("to be paid within", f"{sale.pay_within_s} s"),
        ("generation", f"{sale.generation}, Redis knows {sale.published_generation}"),
        ("load", f"{sale.epoch}, finished {sale.loaded_epoch}"),
        ("in Redis", in_redis),
    ):
        table.add_row(name, str(value))
    return table


async def _items(shop: CliServices, sale: Sale) -> Table:
    table = Table("SKU", "name", "price", "limit", "initial", "free")
    cursor = None
    while True:
        page = await shop.sales.list_items(sale.sale_id, cursor, _PAGE)
        free = await units_free(shop.redis, SaleKeys(sale.sale_id), [item.sku for item in page.items])
        for item, units in zip(page.items, free, strict=True):
            price = show_money(item.price, sale.currency)
            limit = "none" if item.limit_per_user is None else str(item.limit_per_user)
            table.add_row(item.sku, item.name, price, limit, str(item.initial_units), str(units))
        cursor = page.next
        if cursor is None:
            return table


def _time(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
