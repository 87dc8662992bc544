"""`floodgate sale`: sales, their items and their stock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
import typer

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.types import explain_mismatch
from commerce.sale_changes.opening import SaleOpening, describe_gap
from commerce.sale_changes.opening_model import OpeningGap, OpenSale
from commerce.sales.item_csv import read_items
from commerce.sales.model import Sale, SaleInput, SaleItem, SaleState, StockChange, StockChangeInput
from lua import SaleKeys, read_units_free
from ops.commands import sale_changes
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_json,
    print_line,
    print_table,
    print_values,
    print_warning,
    run,
    run_change,
)
from ops.commands.moment_arguments import format_clocks, read_moment
from ops.commands.safe_console import Table
from ops.commands.sale_changes import TIME_HELP, SaleId, Sku, read_redis_state, warn_if_not_in_redis
from ops.services import open_cli_services

app = typer.Typer(help="Create, open, change and show sales and their stock.", no_args_is_help=True)
app.add_typer(sale_changes.app)
_PAGE_SIZE = 1_000


@app.command()
def create(
    sale_id: SaleId,
    items: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="CSV: sku, units, and optionally price and limit_per_user"),
    ],
    title: Annotated[str, typer.Option()],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as CNY")],
    opens: Annotated[datetime, typer.Option(parser=read_moment, metavar="TIME", help=TIME_HELP)] = "now",  # type: ignore[assignment]
    closes: Annotated[
        datetime | None, typer.Option(parser=read_moment, metavar="TIME", help="left out: it never closes")
    ] = None,
    pay_within: Annotated[int, typer.Option(help="seconds until an unpaid order expires")] = 900,
) -> None:
    """Create a sale as a draft. If any line of the items file is wrong, nothing is created."""

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
        sale_items = read_items(items, currency)
        async with open_cli_services() as shop:
            return await shop.sales.create(sale, sale_items, get_actor())

    try:
        sale = run_change(work())
    except msgspec.ValidationError as error:
        raise typer.BadParameter(explain_mismatch(error)) from None
    print_line(f"created {sale.sale_id}, a draft: open it with `floodgate sale open {sale.sale_id}`")


@app.command("open")
def open_(
    sale_id: SaleId,
    anyway: Annotated[str | None, typer.Option(metavar="REASON", help="open it whatever it lacks; recorded")] = None,
) -> None:
    """Load a draft's stock and accept orders from its opening time on; or resume a paused sale.

    A draft that lacks what its orders will need, such as weights or units in warehouses, is refused: `floodgate sale
    check` lists what is missing.
    """

    async def work() -> Sale:
        body = parse_argument({"anyway": anyway}, OpenSale)
        async with open_cli_services() as shop:
            opening = SaleOpening(shop.db, shop.sales, shop.clock)
            sale, gaps = await opening.open(sale_id, get_actor(), body.anyway)
            for gap in gaps:
                print_warning(describe_gap(gap))
            await warn_if_not_in_redis(shop, sale_id)
            return sale

    sale = run_change(work())
    print_line(f"{sale.sale_id} is {sale.state}")


@app.command()
def check(sale_id: SaleId, json: JsonOption = False) -> None:
    """List what a sale lacks for its orders, with what to do. Status 1 if it must not open like this."""

    async def work() -> list[OpeningGap]:
        async with open_cli_services() as shop:
            return await SaleOpening(shop.db, shop.sales, shop.clock).list_gaps(sale_id)

    gaps = run(work())
    if json:
        print_json(gaps)
    else:
        for gap in gaps:
            print_line(f"{'warning' if gap.is_warning else 'missing'}: {describe_gap(gap)}")
        if not gaps:
            print_line(f"{sale_id} lacks nothing")
    if not all(gap.is_warning for gap in gaps):
        raise typer.Exit(1)


@app.command()
def pause(sale_id: SaleId) -> None:
    """Accept no orders until the sale is opened again."""
    _change_state(sale_id, "pause")


@app.command()
def close(sale_id: SaleId) -> None:
    """End a sale permanently."""
    _change_state(sale_id, "close")


def _change_state(sale_id: str, step: str) -> None:
    async def work() -> Sale:
        async with open_cli_services() as shop:
            steps = {"pause": shop.sales.pause, "close": shop.sales.close}
            sale = await steps[step](sale_id, get_actor())
            await warn_if_not_in_redis(shop, sale_id)
            return sale

    sale = run_change(work())
    print_line(f"{sale.sale_id} is {sale.state}")


@app.command("items")
def put_items(
    sale_id: SaleId,
    items: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.csv", help="as for `floodgate sale create`")
    ],
) -> None:
    """Set items of a draft, or add new ones to an open sale. Items that the file does not name stay.

    A line sets its item whole: without a price it has that of the catalog, without a limit none; `floodgate sale
    change-item` changes one value. If any line of the file is wrong, nothing changes. New items of an open sale have 0
    units: `floodgate sale change-stock` adds the stock.
    """

    async def work() -> Sale:
        async with open_cli_services() as shop:
            sale_items = read_items(items, (await shop.sales.get(sale_id)).currency)
            if not sale_items:
                raise Invalid(f"cannot set items of {sale_id}: {items} lists none; give one line per SKU")
            await shop.sales.put_items(sale_id, sale_items, get_actor())
            await warn_if_not_in_redis(shop, sale_id)
            print_line(f"{len(sale_items)} items of {sale_id} are set")
            return await shop.sales.get(sale_id)

    sale = run_change(work())
    if sale.state is not SaleState.DRAFT:
        command = f"floodgate sale change-stock {sale_id} SKU UNITS --reason …"
        print_line(f"add their stock with `{command}`")


@app.command("change-stock", context_settings={"ignore_unknown_options": True})  # -5 is no option
def change_stock(
    sale_id: SaleId,
    sku: Sku,
    delta: Annotated[int, typer.Argument(help="units to add, or with a minus to take away, such as -5")],
    reason: Annotated[str, typer.Option(help="recorded with the change")],
    change_id: Annotated[UUID | None, typer.Option(help="repeat a change whose outcome is unknown")] = None,
) -> None:
    """Change the stock of an open sale. Only free units can be taken away, never those of orders."""

    async def work() -> StockChange:
        async with open_cli_services() as shop:
            change = msgspec.convert({"sku": sku, "delta": delta, "reason": reason}, StockChangeInput)
            return await shop.stock.change(sale_id, change_id or shop.ids.new(), change, get_actor())

    try:
        change = run_change(work())
    except msgspec.ValidationError as error:
        raise typer.BadParameter(explain_mismatch(error)) from None
    print_line(f"{change.sku} {change.delta:+d}: {change.status} (change {change.change_id})")


@app.command()
def show(
    sale_id: SaleId,
    items: Annotated[bool, typer.Option(help="list its items with their free units")] = False,
    json: JsonOption = False,
) -> None:
    """Show a sale's state and times, or its items."""
    if items:
        _show_items(sale_id, json)
    else:
        _show_sale(sale_id, json)


@app.command("list")
def list_sales(json: JsonOption = False) -> None:
    """List all sales."""

    async def work() -> list[Sale]:
        async with open_cli_services() as shop:
            return await list_all(lambda cursor: shop.sales.list_sales(cursor, _PAGE_SIZE, drafts=True))

    sales = run(work())
    if json:
        print_json(sales)
        return
    table = Table("sale", "title", "state", "opens (UTC)", "closes (UTC)")
    for sale in sales:
        table.add_row(sale.sale_id, sale.title, sale.state, format_time(sale.opens_at), _format_end(sale.closes_at))
    print_table(table, "there is no sale: floodgate sale create")


def _show_sale(sale_id: str, json: bool) -> None:
    async def work() -> tuple[Sale, str]:
        async with open_cli_services() as shop:
            sale = await shop.sales.get(sale_id)
            return sale, await read_redis_state(shop, sale) if sale.epoch else "not opened yet"

    sale, redis_state = run(work())
    if json:
        print_json({**msgspec.structs.asdict(sale), "in_redis": redis_state})
        return
    print_values(
        (
            ("sale", sale.sale_id),
            ("title", sale.title),
            ("state", sale.state),
            ("opens", format_clocks(sale.opens_at)),
            ("closes", format_clocks(sale.closes_at)),
            ("pay within", f"{sale.pay_within_s} s"),
            ("freight", sale.freight_template or "none"),
            ("generation", f"{sale.generation}, published to Redis {sale.published_generation}"),
            ("epoch", f"{sale.epoch}, loaded {sale.loaded_epoch}"),
            ("in Redis", redis_state),
        )
    )


def _show_items(sale_id: str, json: bool) -> None:
    async def work() -> tuple[Sale, list[SaleItem], list[int | None]]:
        async with open_cli_services() as shop:
            sale = await shop.sales.get(sale_id)
            items = await list_all(lambda cursor: shop.sales.list_items(sale_id, cursor, _PAGE_SIZE))
            skus = [item.sku for item in items]
            pages = [skus[begin : begin + _PAGE_SIZE] for begin in range(0, len(skus), _PAGE_SIZE)]
            free = [units for page in pages for units in await read_units_free(shop.redis, SaleKeys(sale_id), page)]
            return sale, items, free

    sale, items, free = run(work())
    if json:
        print_json([{**msgspec.structs.asdict(item), "free": units} for item, units in zip(items, free, strict=True)])
        return
    table = Table("SKU", "name", "price", "limit per user", "initial", "free")
    for item, units in zip(items, free, strict=True):
        price = format_money(item.price, sale.currency)
        limit = "none" if item.limit_per_user is None else str(item.limit_per_user)
        table.add_row(item.sku, item.name, price, limit, str(item.initial_units), str(units))
    print_table(table)


def _format_end(moment: datetime | None) -> str:
    return "never" if moment is None else format_time(moment)
