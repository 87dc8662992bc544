"""`floodgate rates`: what carriers charge, and why a parcel got its carrier."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from rich.table import Table

from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money as show_money
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.errors import InvalidRateTable
from commerce.rates.model import CarrierChoice, RateTable, RateTableIndex
from ops.commands.catalog import CsvFile, ReportFile, say_refused
from ops.commands.console import actor, out, run
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="What carriers charge, and which of them is chosen.", no_args_is_help=True)
_WEIGHT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?(g|kg)")
_Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Put a rate table in force, from a CSV file: carrier, region, from_g, to_g, price (12.50), currency, days, cod.

    A region is a country code or goes on to district: CN/Zhejiang/Hangzhou/Xihu. A step holds for weights above
    from_g, up to to_g; the steps of a carrier in a region begin at 0 and leave nothing out. The most specific region
    counts alone: what it does not take, the wider one does not take either. cod (cash on delivery) is yes or no.

    The whole table goes in, or nothing.
    """

    async def work() -> RateTable:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            async with open_cli_services() as shop:
                try:
                    name = file.name.encode(errors="replace").decode()
                    return await shop.rates.import_table(lines, name, actor())
                except InvalidRateTable as error:
                    say_refused(error.faults, report)
                    raise

    done = run(work())
    out.print(f"table {done.table_id} is in force: {done.rates} rates in {done.currency}", highlight=False)


@app.command()
def tables() -> None:
    """List the rate tables that were imported; the first one is in force."""

    async def work() -> list[RateTable]:
        async with open_cli_services() as shop:
            return await shop.rates.tables()

    table = Table("table", "imported (UTC)", "by", "from", "rates", "currency")
    for one in run(work()):
        at = f"{one.imported_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one.table_id), at, one.actor, one.source, str(one.rates), one.currency)
    out.print(table if table.row_count else "there is no rate table: floodgate rates import FILE.csv")


@app.command()
def show(carrier: Annotated[str | None, typer.Option(help="show all of this carrier's rates")] = None) -> None:
    """Show the carriers of the table in force, or one carrier's rates."""

    async def work() -> RateTableIndex:
        async with open_cli_services() as shop:
            return await shop.rates.current()

    book = run(work())
    if carrier is None:
        table = Table("carrier", "regions", "rates")
        for name in book.carriers:
            regions = book.steps_of(name)
            table.add_row(name, str(len(regions)), str(sum(len(steps.rates) for steps in regions)))
    else:
        table = Table("region", "above g", "up to g", "price", "days", "cash on delivery")
        for rate in (rate for steps in book.steps_of(carrier) for rate in steps.rates):
            price, cod = show_money(rate.price_minor, book.table.currency), "yes" if rate.cod else "no"
            table.add_row(rate.region, str(rate.from_g), str(rate.to_g), price, str(rate.days), cod)
    out.print(f"table {book.table.table_id}, from {book.table.source}", highlight=False, markup=False)
    out.print(table if table.row_count else f"there is no carrier {carrier} in it", markup=False)


@app.command()
def choose(
    to: Annotated[str, typer.Option(help="as in CN/Zhejiang/Hangzhou/Xihu")],
    weight: Annotated[str, typer.Option(help="as in 1.5kg or 800g")],
    cod: Annotated[bool, typer.Option("--cod", help="cash is collected at the door")] = False,
    by: _Day = None,
    hand_over: _Day = None,
) -> None:
    """Say who would bring a parcel that is handed over today, or on --hand-over, and is promised --by a day, and why.

    Without --by it is promised as an order is that is paid on that day. Which carriers are down at the moment is not
    looked at.
    """

    async def work() -> CarrierChoice:
        address, weight_g = _address(to), _grams(weight)
        async with open_cli_services() as shop:
            book = await shop.rates.current()
            leaves = hand_over.date() if hand_over else _today(shop)
            promised = by.date() if by else leaves + timedelta(days=shop.settings.shipping.delivery_promise_days)
        return choose_carrier(book, address, weight_g, cod, leaves, promised, {})

    _print(run(work()))


@app.command()
def explain(shipment: Annotated[UUID, typer.Argument(metavar="SHIPMENT")]) -> None:
    """Say why a parcel got its carrier, as it was decided then."""

    async def work() -> CarrierChoice:
        async with open_cli_services() as shop:
            return await shop.rates.explain(shipment)

    _print(run(work()))


def _today(shop: CliServices) -> date:
    return from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(shop.settings.shipping.timezone)).date()


def _address(to: str) -> Address:
    """An address in a region; who lives there makes no difference."""
    country, *parts = to.split("/")
    if len(parts) > 3:
        raise Invalid(f"--to {to}: give country/province/city/district, or fewer of them, as in CN/Zhejiang")
    province, city, district = (*parts, "", "", "")[:3]
    return Address("-", "-", country, city, "-", province, district)


def _grams(text: str) -> int:
    found = _WEIGHT.fullmatch(text.strip().lower())
    grams = round(float(found[1]) * (1000 if found[2] == "kg" else 1)) if found else 0
    if grams < 1:
        raise Invalid(f"--weight {text}: give it as in 1.5kg or 800g")
    return grams


def _print(choice: CarrierChoice) -> None:
    if choice.carrier is None or choice.price is None:
        said = "no carrier takes it"
    else:
        kept = "" if choice.on_time else f", after the promised {choice.promised_on}"
        price = show_money(choice.price, choice.currency)
        said = f"{choice.carrier} for {price}, arrives on {choice.expected_on}{kept}"
    out.print(f"by table {choice.table_id}: {said}", highlight=False)
    table = Table("carrier", "", "region", "price", "days", "arrives on", "why")
    for one in choice.candidates:
        price = "" if one.price is None else show_money(one.price, choice.currency)
        days = "" if one.days is None else str(one.days)
        verdict = one.verdict.replace("_", " ")
        table.add_row(one.carrier, verdict, one.region or "", price, days, str(one.expected_on or ""), one.reason)
    out.print(table)
