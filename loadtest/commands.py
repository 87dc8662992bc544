"""`floodgate replay` and `floodgate capacity`, which `ops.cli` finds by the entry points of pyproject.toml."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import loadtest
from commerce.kernel.money import format_money
from config.settings import load
from loadtest.capacity import PEAKS, Assumptions, NoFigures, first_bottleneck, machines, needs, read
from loadtest.replay import Replay, reasons
from loadtest.replay import replay as run_replay
from loadtest.retail_dataset import CURRENCY
from ops.commands.console import create_progress_bar, err, out, run
from ops.services import open_cli_services

_SHOWN = 50
_LATEST = Path(loadtest.__file__).parents[1] / "docs" / "benchmarks" / "latest.json"


def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Online Retail format, .csv or .csv.gz")],
    base: Annotated[str | None, typer.Option(help="the front door; left out: that of the settings")] = None,
    clients: Annotated[int, typer.Option(min=1, max=500, help="connections")] = 16,
) -> None:
    """Send every basket of a file as one order of its customer, and compare what Postgres then holds with the file.

    Makes the products and a sale with enough stock. Lists each basket that is no order, with its reason. A second run
    creates no order. Status 1 if anything differs.
    """

    async def work() -> Replay:
        settings = load()
        url = base or f"http://{settings.http.host}:{settings.http.port}"
        with create_progress_bar() as bar:
            task = bar.add_task("sending", total=None)
            async with open_cli_services(settings) as shop:
                return await run_replay(
                    shop, url, file, clients, lambda done, of: bar.update(task, completed=done, total=of)
                )

    done = run(work())
    for item in done.source.left_out:
        out.print(f"left out {item.invoice}: {item.reason}", highlight=False, markup=False)
    for reason, count in reasons(done.source):
        out.print(f"{count:5} left out: {reason}", highlight=False, markup=False)
    out.print(
        f"{len(done.source.baskets)} baskets sent to sale {done.sale_id}: {done.created} orders created, "
        f"{done.repeated} were there already\n"
        f"the file comes to {format_money(done.sent_total, CURRENCY)}, Postgres holds {done.stored_orders} orders over "
        f"{format_money(done.stored_total, CURRENCY)}",
        highlight=False,
    )
    for wrong in done.wrong[:_SHOWN]:
        err.print(f"  {wrong}", highlight=False, markup=False, soft_wrap=True)
    if len(done.wrong) > _SHOWN:
        err.print(f"  and {len(done.wrong) - _SHOWN} more", highlight=False)
    if not done.good:
        raise typer.Exit(1)


def capacity(
    peaks: Annotated[list[int] | None, typer.Argument(min=1, help="orders a second; left out: three sizes")] = None,
    figures: Annotated[
        Path, typer.Option(help="the JSON of `make bench`", show_default="the checkout's latest")
    ] = _LATEST,
    cores: Annotated[int, typer.Option(min=1, help="of one machine")] = Assumptions.cores,
) -> None:
    """What a peak takes: cores, Redis shards, disk syncs, Postgres; and which of them gives way first.

    Everything follows from the processor time and the bytes of one order, as `make bench` measured them, and from the
    assumptions that are printed with it.
    """
    try:
        costs = read(figures)
    except NoFigures as error:
        err.print(f"error: {error}", markup=False)
        raise typer.Exit(1) from None
    given = dataclasses.replace(Assumptions(), cores=cores)
    sizes = peaks or list(PEAKS)
    table = Table("part", *(f"{size:,} orders/s" for size in sizes), "in")
    columns = [needs(costs, size, given) for size in sizes]
    for row in zip(*columns, strict=True):
        table.add_row(
            row[0].part, *(f"{need.amount:,.1f}{' *' if need.bottleneck else ''}" for need in row), row[0].unit
        )
    table.add_row("machines", *(str(machines(column, given)) for column in columns), f"of {given.cores} cores")
    out.print(table)
    for size, column in zip(sizes, columns, strict=True):
        reasons = [f"{need.part}: {need.bottleneck}" for need in column if need.bottleneck]
        out.print(f"* at {size:,}: {'; '.join(reasons) or 'one of each is enough'}", markup=False)
    out.print("What gives way, in the order in which it does:")
    for part, limit in first_bottleneck(costs, given):
        out.print(f"  {limit:>12,} orders/s  {part}")
    out.print("Measured, an order:", dataclasses.asdict(costs))
    out.print("Assumed:", dataclasses.asdict(given))
