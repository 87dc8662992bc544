"""`floodgate rates`: rate tables, and the choice of a carrier."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import typer

from commerce.fulfilment.worklists import Worklists
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.kernel.csv_rows import read_lines
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.errors import InvalidRateTable
from commerce.rates.model import CarrierChoice, RateTable, RateTableIndex
from ops.commands.console import (
    CsvFile,
    JsonOption,
    ReportFile,
    format_time,
    get_actor,
    print_json,
    print_line,
    print_line_errors,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_day
from ops.commands.safe_console import Table
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Import and show carriers' rates, and explain which carrier is chosen.", no_args_is_help=True)
_WEIGHT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?) ?(g|kg)")
_MAX_REGION_PARTS = 3  # below the country


@app.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Import a rate table from a CSV file and put it in force.

    Columns: carrier, region, from_g, to_g, price (12.50), currency, days, cod (cash on delivery, yes or no). A region
    is a country code, optionally down to the district: CN/Zhejiang/Hangzhou/Xihu. A step is for weights above from_g,
    up to to_g; the steps of a carrier in a region begin at 0 and have no gaps. Only the most specific region counts:
    what it excludes is not looked up in a wider one.

    Imports the whole table or nothing.
    """

    async def work() -> RateTable:
        lines = read_lines(file)
        async with open_cli_services() as shop:
            try:
                name = file.name.encode(errors="replace").decode()
                return await shop.rates.import_table(lines, name, get_actor())
            except InvalidRateTable as error:
                print_line_errors(error.line_errors, report)
                raise

    table = run_change(work())
    print_line(f"table {table.table_id} is in force: {table.rates} rates in {table.currency}")


@app.command("tables")
def list_tables(json: JsonOption = False) -> None:
    """List the imported rate tables, the one in force first."""

    async def work() -> list[RateTable]:
        async with open_cli_services() as shop:
            return await shop.rates.list_tables()

    tables = run(work())
    if json:
        print_json(tables)
        return
    output = Table("table", "imported (UTC)", "actor", "source", "rates", "currency")
    for table in tables:
        imported_at = format_time(table.imported_at)
        output.add_row(str(table.table_id), imported_at, table.actor, table.source, str(table.rates), table.currency)
    print_table(output, "there is no rate table: floodgate rates import FILE.csv")


@app.command()
def show(
    carrier: Annotated[str | None, typer.Option(help="show all rates of this carrier")] = None,
    json: JsonOption = False,
) -> None:
    """Show the carriers of the table in force, or one carrier's rates."""

    async def work() -> RateTableIndex:
        async with open_cli_services() as shop:
            return await shop.rates.get_current()

    index = run(work())
    if json:
        names = index.carriers if carrier is None else (carrier,)
        print_json([rate for name in names for steps in index.steps_of(name) for rate in steps.rates])
        return
    if carrier is None:
        table = Table("carrier", "regions", "rates")
        for name in index.carriers:
            regions = index.steps_of(name)
            table.add_row(name, str(len(regions)), str(sum(len(steps.rates) for steps in regions)))
    else:
        table = Table("region", "above g", "up to g", "price", "days", "cash on delivery")
        for rate in (rate for steps in index.steps_of(carrier) for rate in steps.rates):
            price, cod = format_money(rate.price_minor, index.table.currency), "yes" if rate.cod else "no"
            table.add_row(rate.region, str(rate.from_g), str(rate.to_g), price, str(rate.days), cod)
    print_line(f"table {index.table.table_id}, from {index.table.source}")
    print_table(table, f"there is no carrier {carrier} in it")


@app.command()
def choose(
    to: Annotated[str, typer.Option(metavar="REGION", help="such as CN/Zhejiang/Hangzhou/Xihu")],
    weight: Annotated[str, typer.Option(help="such as 1.5kg or 800g")],
    cod: Annotated[bool, typer.Option("--cod", help="the carrier collects cash on delivery")] = False,
    by: Annotated[
        date | None,
        typer.Option(
            parser=read_day,
            metavar="YYYY-MM-DD",
            help="promised day; left out: as for an order paid on the hand-over day",
        ),
    ] = None,
    hand_over: Annotated[
        date | None,
        typer.Option(parser=read_day, metavar="YYYY-MM-DD", help="day of the hand-over; left out: today"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show which carrier would get a shipment, and why.

    Uses the rates alone: carriers that are unavailable at the moment are not excluded.
    """

    async def work() -> CarrierChoice:
        address, weight_g = _parse_region(to), parse_weight(weight)
        async with open_cli_services() as shop:
            index = await shop.rates.get_current()
            hand_over_on = hand_over or _today(shop)
            promise_days = timedelta(days=shop.settings.shipping.delivery_promise_days)
            promised_on = by or hand_over_on + promise_days
        return choose_carrier(
            index, address, weight_g, cod=cod, dispatch_on=hand_over_on, promised_on=promised_on, excluded={}
        )

    _print_choice(run(work()), json)


@app.command()
def explain(
    shipment_id: Annotated[UUID, typer.Argument(metavar="SHIPMENT", help="the shipment's id")],
    json: JsonOption = False,
) -> None:
    """Show the recorded reasons for a shipment's carrier."""

    async def work() -> CarrierChoice:
        async with open_cli_services() as shop:
            worklists = Worklists(shop.db, shop.clock, shop.settings.shipping)
            return await worklists.explain_carrier_choice(shipment_id)

    _print_choice(run(work()), json)


def _today(shop: CliServices) -> date:
    return from_ms(shop.clock.now_ms()).astimezone(ZoneInfo(shop.settings.shipping.timezone)).date()


def _parse_region(text: str) -> Address:
    """Return an address in a region; its other fields make no difference to rates. Raises `Invalid`."""
    country, *parts = text.split("/")
    if len(parts) > _MAX_REGION_PARTS:
        raise Invalid(f"--to {text}: give country/province/city/district, or fewer of them, such as CN/Zhejiang")
    province, city, district = (*parts, "", "", "")[:_MAX_REGION_PARTS]
    return Address("-", "-", country, city, "-", province, district)


def parse_weight(text: str) -> int:
    """Return a weight in grams. Raises `Invalid`."""
    match = _WEIGHT.fullmatch(text.strip().lower())
    grams = round(float(match[1]) * (1000 if match[2] == "kg" else 1)) if match else 0
    if grams < 1:
        raise Invalid(f"--weight {text}: give a weight such as 1.5kg or 800g")
    return grams


def _print_choice(choice: CarrierChoice, json: bool) -> None:
    if json:
        print_json(choice)
        return
    if choice.carrier is None or choice.price is None:
        result = "no carrier takes it"
    else:
        delay = "" if choice.on_time else f", after the promised {choice.promised_on}"
        price = format_money(choice.price, choice.currency)
        result = f"{choice.carrier} for {price}, arrives on {choice.expected_on}{delay}"
    print_line(f"by table {choice.table_id}: {result}")
    table = Table("carrier", "verdict", "region", "price", "days", "arrives on", "reason")
    for candidate in choice.candidates:
        table.add_row(
            candidate.carrier,
            candidate.verdict.replace("_", " "),
            candidate.region or "",
            "" if candidate.price is None else format_money(candidate.price, choice.currency),
            "" if candidate.days is None else str(candidate.days),
            str(candidate.expected_on or ""),
            candidate.reason,
        )
    print_table(table)
