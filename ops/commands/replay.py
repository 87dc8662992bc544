"""`floodgate replay`: real baskets through the front door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.money import format_money
from config.settings import load
from loadtest.replay import Replay, reasons
from loadtest.replay import replay as run_replay
from loadtest.retail_dataset import CURRENCY
from ops.commands.catalog import progress_bar
from ops.commands.console import err, out, run
from ops.services import open_cli_services

_SHOWN = 50


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
        with progress_bar() as bar:
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
