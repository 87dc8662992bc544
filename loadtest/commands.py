"""`floodgate replay`, `capacity` and `generate-products`, found by the entry points of pyproject.toml."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

import loadtest
from commerce.categories.taxonomy_reader import read_taxonomy
from commerce.kernel.bind import local_url
from commerce.kernel.clock import from_ms
from commerce.kernel.money import format_money
from config.settings import load
from loadtest.capacity import (
    PEAKS,
    Assumptions,
    NoFigures,
    compute_needs,
    count_machines,
    rank_bottlenecks,
    read_costs,
)
from loadtest.generated_products import MAX_PRODUCTS, ProductGenerator
from loadtest.product_loading import LoadedProducts, load_products
from loadtest.replay import Replay, count_skip_reasons
from loadtest.replay import replay as run_replay
from loadtest.replay_cases import PlayedReturns
from loadtest.replay_returns import ReturnPlan
from loadtest.retail_dataset import CURRENCY
from loadtest.set_up import SET_UP_STATUS
from ops.commands.console import fail, print_detail, print_line, print_table, run, run_change
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import open_cli_services

_MAX_PRINTED_DIFFERENCES = 50
_LATEST_FIGURES = Path(loadtest.__file__).parents[1] / "docs" / "benchmarks" / "latest.json"


def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Online Retail format, .csv or .csv.gz")],
    base: Annotated[
        str | None, typer.Option(metavar="URL", help="the gateway's address; left out: from the settings")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=500, help="concurrent connections")] = 16,
    through_cart: Annotated[
        bool, typer.Option("--through-cart", help="put each basket into the cart of its own customer, and check it out")
    ] = False,
) -> None:
    """Send each basket of a file as an order, and compare the stored orders with the file.

    Creates the products and a sale with enough stock. Lists each invoice that is no order, with the reason. Lines of
    returns are matched to earlier purchases of the customer, and others are listed with the reason. Matched ones go
    through cases: their orders are paid and delivered, units are received and inspected, and their money is refunded;
    this needs a payment worker. A second run creates no order and no case. Carts order in a sale of their own; a basket
    with more lines than a cart may hold is several carts. Status 1 if anything differs, 3 if nothing could be compared:
    no such file format, gateway, key or database.
    """

    async def work() -> Replay:
        settings = load()
        url = base or local_url(settings.http.host, settings.http.port)
        with create_progress_bar() as bar:
            task = bar.add_task("sending", total=None)
            async with open_cli_services(settings) as shop:
                return await run_replay(
                    *(shop, url, file, clients),
                    lambda done, total: bar.update(task, completed=done, total=total),
                    is_through_cart=through_cart,
                )

    try:
        result = run(work())
    except typer.Exit:  # the error is printed; status 1 would be a result
        raise typer.Exit(SET_UP_STATUS) from None
    for skipped in result.source.skipped:
        print_line(f"skipped {skipped.invoice}: {skipped.reason}")
    for refused in result.returns.refused:
        print_line(f"refused line {refused.line.number} of {refused.line.invoice}: {refused}")
    for reason, count in count_skip_reasons(result.source):
        print_line(f"{count:5} skipped: {reason}")
    print_line(
        f"{len(result.source.baskets)} baskets sent to sale {result.sale_id}: {result.created} orders created, "
        f"{result.repeated} existed before"
    )
    if result.is_through_cart:
        print_line(
            f"they are {len(result.baskets)} carts, whose customers were shown a total of "
            f"{format_money(result.expected_total, CURRENCY)} with discounts and freight"
        )
    print_line(
        f"the file's total is {format_money(result.sent_total, CURRENCY)}, Postgres has {result.stored_orders} orders "
        f"with a total of {format_money(result.stored_total, CURRENCY)}"
    )
    _print_returns(result.returns, result.played)
    differences = [*result.differences, *(result.played.differences if result.played else ())]
    for difference in differences[:_MAX_PRINTED_DIFFERENCES]:
        print_detail(f"  {difference}")
    if len(differences) > _MAX_PRINTED_DIFFERENCES:
        print_detail(f"  and {len(differences) - _MAX_PRINTED_DIFFERENCES} more")
    if not result.is_complete:
        raise typer.Exit(1)


def _print_returns(plan: ReturnPlan, played: PlayedReturns | None) -> None:
    """Print how many lines of returns are refunded, and why the others are refused."""
    for reason, count, total in plan.count_reasons():
        print_line(f"{count:5} lines of returns over {format_money(total, CURRENCY)} refused: {reason}")
    print_line(
        f"the file's returns have {len(plan.matched) + len(plan.refused)} lines over "
        f"{format_money(plan.matched_total + plan.refused_total, CURRENCY)}: {len(plan.matched)} over "
        f"{format_money(plan.matched_total, CURRENCY)} are matched to earlier purchases"
    )
    if played is not None:
        print_line(
            f"{played.created} cases resolved, {played.repeated} existed before; customers got back "
            f"{format_money(played.refunded_total, CURRENCY)}"
        )


def capacity(
    peaks: Annotated[list[int] | None, typer.Argument(min=1, help="orders per second; left out: three sizes")] = None,
    figures: Annotated[
        Path, typer.Option(help="JSON of `make bench`", show_default="the checkout's latest")
    ] = _LATEST_FIGURES,
    cores: Annotated[int, typer.Option(min=1, help="cores of one machine")] = Assumptions.cores,
) -> None:
    """Show the resources that peaks need, and which part is the first bottleneck.

    Computed from the processor time and the bytes per order that `make bench` measured, and from the assumptions that
    are printed with the result.
    """
    try:
        costs = read_costs(figures)
    except NoFigures as error:
        fail(str(error))
    assumptions = dataclasses.replace(Assumptions(), cores=cores)
    sizes = peaks or list(PEAKS)
    table = Table("part", *(f"{size:,} orders/s" for size in sizes), "unit")
    columns = [compute_needs(costs, size, assumptions) for size in sizes]
    for row in zip(*columns, strict=True):
        table.add_row(
            row[0].part, *(f"{need.amount:,.1f}{' *' if need.bottleneck else ''}" for need in row), row[0].unit
        )
    machines = (str(count_machines(column, assumptions)) for column in columns)
    table.add_row("machines", *machines, f"of {assumptions.cores} cores")
    print_table(table)
    for size, column in zip(sizes, columns, strict=True):
        bottlenecks = [f"{need.part}: {need.bottleneck}" for need in column if need.bottleneck]
        print_line(f"* at {size:,}: {'; '.join(bottlenecks) or 'one of each is enough'}")
    print_line("Bottlenecks, the first one first:")
    for part, limit in rank_bottlenecks(costs, assumptions):
        print_line(f"  {limit:>12,} orders/s  {part}")
    print_line(f"Measured per order: {dataclasses.asdict(costs)}")
    print_line(f"Assumptions: {dataclasses.asdict(assumptions)}")


def generate_products(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="DIR", help="files of a taxonomy")],
    count: Annotated[int, typer.Option(min=1, max=MAX_PRODUCTS, help="number of products")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="another one makes other products")] = 1,
) -> None:
    """Load products that are made from a taxonomy, for load tests.

    DIR is what `floodgate catalog taxonomy import` reads, and the shop must have imported it. Products have texts in
    Chinese and English that say that they are generated, brands, attributes, prices and variants; the same seed makes
    the same products. All are loaded or none; the histories of products and prices keep them permanently.
    """

    async def work() -> LoadedProducts:
        generator = ProductGenerator(read_taxonomy(folder), seed)
        with create_progress_bar() as bar:
            task = bar.add_task("loading", total=count)
            async with open_cli_services() as shop:
                return await load_products(
                    *(shop.db, generator.generate(count), from_ms(shop.clock.now_ms())),
                    lambda done: bar.update(task, completed=done),
                )

    loaded = run_change(work())
    print_line(f"{loaded.products} generated products with {loaded.variants} variants are on sale")
