"""`floodgate backup` and `floodgate restore`: both databases in the order that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.migrations import migrate
from commerce.kernel.postgres import connect
from config.settings import load
from ops.commands.console import print_line, run, run_change
from ops.services import open_cli_services
from ops.shop_backup import BackupSummary, create_backup, restore_database, restore_redis

_MIGRATION_TIMEOUT_S = 6 * 3_600


def backup(directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="a new directory")]) -> None:
    """Back up the orders that wait in Redis, and Postgres, while orders flow. Needs pg_dump."""

    async def work() -> BackupSummary:
        async with open_cli_services() as shop:
            return await create_backup(shop, directory)

    summary = run(work())
    print_line(
        f"{directory}: Postgres, and {summary.waiting_orders} orders of {summary.sales} sales that waited in Redis"
    )


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", exists=True, file_okay=False, help="a backup")],
) -> None:
    """Restore a backup into an empty database, and load every sale into Redis.

    Stop gateways and workers first.
    """

    async def work() -> tuple[BackupSummary, int]:
        settings = load()
        summary = await restore_database(directory, settings.database())
        connection = await connect(settings.database(), name="migrate", timeout_s=_MIGRATION_TIMEOUT_S)
        try:
            await migrate(connection)
        finally:
            await connection.close()
        async with open_cli_services(settings) as shop:
            return summary, await restore_redis(shop, directory)

    summary, sales = run_change(work())
    print_line(f"restored the state of {summary.created_at:%Y-%m-%d %H:%M:%S} UTC: {sales} sales are loaded; now audit")
