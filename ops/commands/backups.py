"""`floodgate backup` and `floodgate restore`: both databases in the order that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from config.settings import load
from ops.commands.console import print_line, run, run_change
from ops.services import open_cli_services
from ops.shop_backup import BackupSummary, create_backup, restore_shop


def backup(directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="a new directory")]) -> None:
    """Back up the orders that wait in Redis, Postgres, and customers' pictures.

    Orders may flow meanwhile. Needs pg_dump."""

    async def work() -> BackupSummary:
        async with open_cli_services() as shop:
            return await create_backup(shop, directory)

    summary = run(work())
    print_line(
        f"{directory}: Postgres, {summary.waiting_orders} orders of {summary.sales} sales that waited in Redis, "
        f"and {summary.pictures} pictures"
    )
    if summary.missing_pictures:
        print_line(
            f"{summary.missing_pictures} pictures are not in the backup, because their files are missing or damaged: "
            "run it where aftersales.evidence_dir is the folder of the gateways"
        )


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", exists=True, file_okay=False, help="a backup")],
) -> None:
    """Restore a backup into an empty database, and load every sale into Redis.

    Pictures of customers go into their folder. Stop gateways and workers first. If it fails, repeat it with the same
    database.
    """

    async def work() -> list[str]:
        return await restore_shop(directory, load())

    for line in run_change(work()):
        print_line(line)
