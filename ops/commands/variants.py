"""`floodgate catalog variant`: what has a SKU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from commerce.catalog.model import ProductId, ProductVariantInput, Sku, Variant
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, format_money, parse_money
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Show variants, add them to products, change and move them.", no_args_is_help=True)


@app.command()
def show(sku: str, json: JsonOption = False) -> None:
    """Show a variant."""

    async def work() -> Variant:
        async with open_cli_services() as shop:
            return await shop.catalog.get(sku)

    variant = run(work())
    if json:
        print_json(variant)
    else:
        print_table(build_table([variant]))


@app.command()
def put(
    product_id: Annotated[str, typer.Argument(metavar="PRODUCT")],
    sku: str,
    name: Annotated[str, typer.Option(help="the name on orders and labels")],
    price: Annotated[str, typer.Option(help="the list price, as 2.55")],
    currency: Annotated[str, typer.Option(help="its currency, as GBP")],
    reason: Annotated[str, typer.Option(help="the reason, for the record of changes")],
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=VALUE", help="a value for each option of the product; JSON, or a text as it is"),
    ] = None,
    barcode: Annotated[str | None, typer.Option(help="8, 12, 13 or 14 digits")] = None,
    moved_from: Annotated[
        str | None, typer.Option(metavar="PRODUCT", help="the product whose variant it is until now")
    ] = None,
) -> None:
    """Add a variant to a product, replace it, or move it there from another product."""

    async def work() -> Variant:
        values = {
            "name": name,
            "price": parse_price(price, currency),
            "currency": currency,
            "option_values": dict(_parse_option(text) for text in option or []),
            "barcode": barcode,
            "moved_from": moved_from,
            "reason": reason,
        }
        new = parse_argument(values, ProductVariantInput)
        async with open_cli_services() as shop:
            return await shop.product_variants.put(
                parse_argument(product_id, ProductId), parse_argument(sku, Sku), new, get_actor()
            )

    variant = run_change(work())
    print_line(f"{variant.sku} is a variant of {variant.product_id}")


def parse_price(text: str, currency: str) -> int:
    """Parse an amount such as 2.55. Raises `Invalid` if it is none."""
    try:
        return parse_money(text, currency)
    except MoneyError as error:
        raise Invalid(str(error)) from None


def _parse_option(text: str) -> tuple[str, Any]:
    """Parse `size=m` or `color=["red"]`; a value that is no JSON is a text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise Invalid(f"{text!r} is no option with its value; write it as size=m")
    try:
        return name, msgspec.json.decode(value.encode())
    except msgspec.DecodeError:
        return name, value


def build_table(variants: Sequence[Variant]) -> Table:
    """Build the table of variants."""
    table = Table("SKU", "product", "name", "price", "options", "barcode", "changed (UTC)")
    for variant in variants:
        options = ", ".join(f"{name}: {format_value(value)}" for name, value in variant.option_values.items())
        table.add_row(
            *(variant.sku, variant.product_id, variant.name, format_money(variant.price, variant.currency)),
            *(options, variant.barcode or "", format_time(variant.updated_at)),
        )
    return table


def format_value(value: object) -> str:
    """Format the value of an attribute."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
