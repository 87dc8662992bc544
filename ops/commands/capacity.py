"""`floodgate capacity`: what a peak takes, from what an order was measured to cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import loadtest
from loadtest.capacity import PEAKS, Assumptions, NoFigures, first_bottleneck, machines, needs, read
from ops.commands.console import err, out

_LATEST = Path(loadtest.__file__).parents[1] / "docs" / "benchmarks" / "latest.json"


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
