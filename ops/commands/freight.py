"""`floodgate freight`: templates of what customers pay for freight, and the sales that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.freight.freight_csv import FreightRowError, format_freight_templates, read_freight_templates
from commerce.freight.model import (
    UNIT_NAMES,
    CompiledFreight,
    FreightCharge,
    FreightStep,
    FreightSummary,
    FreightTemplate,
    Measure,
)
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.csv_rows import read_lines
from commerce.kernel.durable_files import replace_file
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, format_money, parse_money
from commerce.sales.model import Sale
from commerce.sales.sale_freight import TemplateChange
from ops.commands.console import (
    CsvFile,
    JsonOption,
    ReportFile,
    check_writable,
    exit_on_error,
    fail,
    format_time,
    get_actor,
    list_all,
    print_json,
    print_line,
    print_line_errors,
    print_table,
    run,
    run_change,
)
from ops.commands.rates import parse_weight
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Import and show what customers pay for freight, and set it for sales.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="TEMPLATE", help="the template's name")]
_PAGE_SIZE = 200
_MAX_PARTS = 2  # below the country


class TemplateImport(msgspec.Struct, frozen=True):
    """The result of an import or of a check: nothing is imported if there are errors."""

    imported: bool
    templates: list[TemplateChange]
    errors: list[FreightRowError]


class TriedFreight(msgspec.Struct, frozen=True):
    """A charge of a template, with the template's fee for cash on delivery; amounts are minor units."""

    template: str
    version: int
    currency: str
    charged_by: Measure
    cod_fee_minor: int
    charge: FreightCharge


@app.command("list")
def list_templates(json: JsonOption = False) -> None:
    """List all templates."""

    async def work() -> list[FreightSummary]:
        async with open_cli_services() as shop:
            return await list_all(lambda cursor: shop.sale_freight.templates.list_templates(cursor, _PAGE_SIZE))

    templates = run(work())
    if json:
        print_json(templates)
        return
    table = Table("template", "version", "charged by", "zones", "cash on delivery", "sales", "changed (UTC)", "actor")
    for template in templates:
        table.add_row(
            template.name,
            str(template.version),
            template.charged_by,
            str(template.zones),
            format_money(template.cod_fee_minor, template.currency),
            str(template.sales),
            format_time(template.changed_at),
            template.actor,
        )
    print_table(table, "there is no freight template: floodgate freight import FILE.csv")


@app.command()
def show(name: Name, json: JsonOption = False) -> None:
    """Show a template with its zones."""

    async def work() -> FreightTemplate:
        async with open_cli_services() as shop:
            return await shop.sale_freight.templates.get(name)

    template = run(work())
    if json:
        print_json(template)
        return
    terms = template.terms
    cod_fee = format_money(terms.cod_fee_minor, terms.currency)
    print_line(f"{name}, version {template.version}: charged by {terms.charged_by}; cash on delivery {cod_fee}")
    table = Table("zone", "regions", "steps", "free from")
    for zone in terms.zones:
        table.add_row(
            zone.name,
            ", ".join(map(str, zone.regions)),
            "; ".join(_describe(step, terms.charged_by, terms.currency) for step in zone.steps),
            "" if zone.free_from_minor is None else format_money(zone.free_from_minor, terms.currency),
        )
    print_table(table)


@app.command("import")
def import_file(
    file: CsvFile,
    check: Annotated[bool, typer.Option("--check", help="say what the import would do, and change nothing")] = False,
    report: ReportFile = None,
    json: JsonOption = False,
) -> None:
    """Create templates from a CSV file, or replace those of the same name whole.

    Columns: template, currency, charged_by (weight, pieces or amount), zone, country, above, up_to, fee; optionally
    cod_fee, free_from, province, city, per. Each row adds to its zone a region (a country, or * for all that no zone
    names, and optionally province and city), a step, or both. A step is for quantities above one and up to another, in
    g, pieces or money. The last step may have no up_to; with per, its fee is for each begun so many more, on top of the
    step before. cod_fee (of the template) and free_from (of the zone) are on any of the rows.

    The whole file is checked first, and imported whole or not at all. A repeated import changes nothing.
    """

    with exit_on_error():
        content = read_freight_templates(read_lines(file))
    if content.errors:
        print_line_errors([error.to_line_error() for error in content.errors], report)
        if json:
            print_json(TemplateImport(False, [], content.errors))
        fail(f"cannot import {file}: {len(content.errors)} faults in its rows, so nothing is imported")

    async def work() -> list[TemplateChange]:
        async with open_cli_services() as shop:
            return await shop.sale_freight.put_templates(content.templates, get_actor(), check_only=check)

    changes = run(work()) if check else run_change(work())
    if json:
        print_json(TemplateImport(not check, changes, []))
        return
    for change in changes:
        sales = f", for {len(change.sales)} sales" if change.sales else ""
        print_line(f"{change.name} {'would be ' if check else ''}{change.status}: version {change.version}{sales}")


@app.command("export")
def export_file(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", callback=check_writable, help="is replaced")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[TEMPLATE]...", help="left out: all")] = None,
) -> None:
    """Write templates to a CSV file, which `import` reads back without a change."""

    async def work() -> list[FreightTemplate]:
        async with open_cli_services() as shop:
            wanted = names or [
                template.name
                for template in await list_all(
                    lambda cursor: shop.sale_freight.templates.list_templates(cursor, _PAGE_SIZE)
                )
            ]
            return [await shop.sale_freight.templates.get(name) for name in wanted]

    templates = run(work())
    try:
        replace_file(file, format_freight_templates(templates).encode())
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}; name another file")
    print_line(f"{len(templates)} templates are in {file}")


@app.command()
def assign(
    sale_id: Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")],
    name: Annotated[str | None, typer.Argument(metavar="TEMPLATE", help="the template's name")] = None,
    none: Annotated[bool, typer.Option("--none", help="customers of the sale pay no freight")] = False,
) -> None:
    """Set the freight template of a sale, or with --none take it away."""

    async def work() -> Sale:
        if (name is None) is not none:
            raise Invalid("name a template, or give --none")
        async with open_cli_services() as shop:
            return await shop.sale_freight.assign(sale_id, name, get_actor())

    sale = run_change(work())
    terms = "none" if sale.freight_template is None else f"by {sale.freight_template}"
    published = sale.epoch == 0 or sale.published_generation == sale.generation
    print_line(f"freight of {sale_id}: {terms}" + ("" if published else "; it is not published yet"))


@app.command("try")
def try_template(
    name: Name,
    to: Annotated[str, typer.Option(metavar="REGION", help="country/province/city, such as CN/浙江/杭州; GB//London")],
    weight: Annotated[str | None, typer.Option(help="such as 1.5kg or 800g; left out: 0")] = None,
    pieces: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1,
    amount: Annotated[str, typer.Option(help="price of the items after discounts, such as 99.00")] = "0",
    json: JsonOption = False,
) -> None:
    """Show what a template charges for an address, and by which zone and step."""

    async def work() -> TriedFreight:
        country, province, city = _parse_region(to)
        grams = 0 if weight is None else parse_weight(weight)
        async with open_cli_services() as shop:
            template = await shop.sale_freight.templates.get(name)
        try:
            items_minor = parse_money(amount, template.terms.currency)
        except MoneyError as error:
            raise Invalid(f"--amount: {error}") from None
        charge = CompiledFreight(template).explain(country, province, city, grams, pieces, items_minor)
        terms = template.terms
        return TriedFreight(name, template.version, terms.currency, terms.charged_by, terms.cod_fee_minor, charge)

    tried = run(work())
    if json:
        print_json(tried)
        return
    charge = tried.charge
    step = "free from a threshold" if charge.step is None else _describe(charge.step, tried.charged_by, tried.currency)
    print_line(f"{format_money(charge.fee_minor, tried.currency)}: zone {charge.zone}, {step}")
    print_line(f"cash on delivery: {format_money(tried.cod_fee_minor, tried.currency)} more, once per order")


def _parse_region(text: str) -> tuple[str, str, str]:
    country, *parts = text.split("/")
    if country.upper() not in COUNTRIES or len(parts) > _MAX_PARTS:
        raise Invalid(f"--to {text}: give country/province/city, or fewer of them, such as CN/浙江")
    province, city = (*parts, "", "")[:_MAX_PARTS]
    return country.upper(), province, city


def _describe(step: FreightStep, charged_by: Measure, currency: str) -> str:
    """Return a step as text: `above 0 up to 1000 g: 8.00 CNY`."""

    def quantity(value: int) -> str:
        return format_money(value, currency) if charged_by == "amount" else f"{value} {UNIT_NAMES[charged_by]}"

    fee = format_money(step.fee_minor, currency)
    if step.up_to is not None:
        return f"above {quantity(step.above)} up to {quantity(step.up_to)}: {fee}"
    return f"above {quantity(step.above)}: {fee}" + ("" if step.per is None else f" more for each {quantity(step.per)}")
