"""`floodgate catalog`: products with their changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.catalog.errors import NoSuchProduct
from commerce.catalog.model import (
    Product,
    ProductChange,
    ProductId,
    ProductInput,
    ProductStatus,
    ProductStep,
    ProductSummary,
    PublishStep,
)
from commerce.categories.model import CategoryId
from commerce.kernel.money import format_money
from commerce.kernel.text_files import read_file
from gateway.decoding import decode_json
from ops.commands import (
    catalog_imports,
    catalog_prices,
    categories,
    product_quality,
    search_evaluation,
    variants,
)
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
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Import, show and change products, their variants and prices.", no_args_is_help=True)
app.add_typer(variants.app, name="variant")
app.add_typer(catalog_prices.app, name="price")
app.add_typer(product_quality.app, name="quality")
app.add_typer(catalog_imports.app, name="imports")
app.add_typer(categories.category_app, name="category")
app.add_typer(categories.taxonomy_app, name="taxonomy")
app.command("import")(catalog_imports.import_file)
app.command("export")(catalog_imports.export_file)
app.command("evaluate")(search_evaluation.evaluate_files)
ProductArgument = Annotated[str, typer.Argument(metavar="PRODUCT", help="the product's id")]
ReasonOption = Annotated[str, typer.Option(help="the reason, for the record of changes")]
VersionOption = Annotated[
    int | None, typer.Option(help="the version that you have read; left out: the present one", show_default=False)
]
_PAGE_SIZE, _SHOWN_CHANGES = 100, 50


@app.command("products")
def list_products(
    status: Annotated[ProductStatus | None, typer.Option(help="only products of this status")] = None,
    category: Annotated[str | None, typer.Option(help="only products of this category")] = None,
    json: JsonOption = False,
) -> None:
    """List products with their lowest and highest list price."""

    async def work() -> list[ProductSummary]:
        category_id = None if category is None else parse_argument(category, CategoryId)
        async with open_cli_services() as shop:
            return await list_all(lambda cursor: shop.products.list_products(cursor, _PAGE_SIZE, status, category_id))

    products = run(work())
    if json:
        print_json(products)
        return
    table = Table("product", "status", "version", "name", "category", "brand", "variants", "price")
    for product in products:
        table.add_row(
            *(product.product_id, product.status, str(product.version), next(iter(product.names.values()), "")),
            *(product.category_id or "", product.brand or "", str(product.variant_count), _price_range(product)),
        )
    print_table(table, "there is no such product: floodgate catalog import FILE, or put PRODUCT FILE")


def _price_range(product: ProductSummary) -> str:
    if product.min_price is None or product.max_price is None or product.currency is None:
        return ""
    prices = sorted({product.min_price, product.max_price})
    return " to ".join(format_money(price, product.currency) for price in prices)


@app.command()
def show(
    product_id: Annotated[str, typer.Argument(metavar="PRODUCT", help="the id of a product, or one of its SKUs")],
    json: JsonOption = False,
) -> None:
    """Show a product with its texts and variants."""

    async def work() -> Product:
        async with open_cli_services() as shop:
            try:
                return await shop.products.get(product_id)
            except NoSuchProduct:
                return await shop.products.get((await shop.catalog.get(product_id)).product_id)

    product = run(work())
    if json:
        print_json(product)
        return
    print_values(
        [
            *(("product", product.product_id), ("status", product.status), ("version", product.version)),
            *(("category", product.category_id or ""), ("brand", product.brand or "")),
            *((name, variants.format_value(value)) for name, value in product.attributes.items()),
            ("options", ", ".join(product.options)),
        ]
    )
    texts = Table("language", "name", "description", "search words")
    for language, text in product.texts.items():
        texts.add_row(language, text.name, text.description or "", ", ".join(text.search_words))
    print_table(texts)
    print_table(variants.build_table(product.variants), "it has no variants: floodgate catalog variant put")


@app.command()
def changes(
    product_id: ProductArgument,
    count: Annotated[int, typer.Option(min=1, max=1000, help="the newest so many")] = _SHOWN_CHANGES,
    json: JsonOption = False,
) -> None:
    """Show who changed a product and its variants, when and why, newest first."""

    async def work() -> list[ProductChange]:
        async with open_cli_services() as shop:
            return (await shop.products.list_changes(product_id, None, count)).items

    listed = run(work())
    if json:
        print_json(listed)
        return
    table = Table("version", "at (UTC)", "action", "by", "reason", "fields")
    for change in listed:
        table.add_row(
            *(str(change.version), format_time(change.at), change.action, change.actor, change.reason),
            ", ".join(change.diff),
        )
    print_table(table)


@app.command()
def put(
    product_id: ProductArgument,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.json")],
) -> None:
    """Create a draft from a JSON file, or with its version replace all but its status and variants.

    The file is the body of `PUT /v1/admin/products/{product_id}`: texts by language, category_id, brand, attributes,
    options, version, reason.
    """

    async def work(shop: CliServices) -> Product:
        new = decode_json(msgspec.json.Decoder(ProductInput), read_file(file))
        return await shop.products.put(parse_argument(product_id, ProductId), new, get_actor())

    _change(work)


@app.command()
def publish(
    product_id: ProductArgument,
    reason: ReasonOption,
    version: VersionOption = None,
    anyway: Annotated[
        str | None, typer.Option(metavar="REASON", help="publish it whatever its quality; recorded")
    ] = None,
) -> None:
    """Put a product on sale. One whose grade is too low is refused, with what to fix."""

    async def work(shop: CliServices) -> Product:
        read = version or (await shop.products.get(product_id)).version
        step = parse_argument({"version": read, "reason": reason, "anyway": anyway}, PublishStep)
        return await shop.products.publish(product_id, step, get_actor())

    _change(work)


@app.command()
def retire(product_id: ProductArgument, reason: ReasonOption, version: VersionOption = None) -> None:
    """Hide a product from customers. Sales that offer it go on; no sale may add it."""

    async def work(shop: CliServices) -> Product:
        read = version or (await shop.products.get(product_id)).version
        step = parse_argument({"version": read, "reason": reason}, ProductStep)
        product = await shop.products.retire(product_id, step, get_actor())
        for sale_id in await shop.sales.list_open_of_product(product_id):
            print_warning(f"{sale_id} goes on selling it: floodgate sale change-item ends that")
        return product

    _change(work)


@app.command()
def reindex(json: JsonOption = False) -> None:
    """Build the index of products again. Customers go on finding what it has meanwhile.

    Changes are indexed within seconds without it: it is for an index that was damaged, or changed by hand.
    """

    async def work() -> int:
        with create_progress_bar() as bar:
            task = bar.add_task("indexing", total=None)
            async with open_cli_services() as shop:
                return await shop.product_indexer.reindex(lambda entries: bar.advance(task, entries))

    products = run(work())
    if json:
        print_json({"products": products})
    else:
        print_line(f"indexed {products} products")


def _change(change: Callable[[CliServices], Awaitable[Product]]) -> None:
    async def work() -> Product:
        async with open_cli_services() as shop:
            return await change(shop)

    product = run_change(work())
    print_line(f"{product.product_id} is {product.status}, version {product.version}")
