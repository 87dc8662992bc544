"""`floodgate backup` and `floodgate restore`: both databases in the order that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.migrations import migrate
from commerce.kernel.postgres import connect
from commerce.kernel.redis_client import open_redis
from config.settings import Settings, load
from lua import check_writable
from ops.commands.console import print_line, run, run_change
from ops.picture_backup import restore_pictures
from ops.services import open_cli_services
from ops.shop_backup import PICTURES, BackupSummary, RestoreReport, create_backup, restore_database, restore_redis

_MIGRATION_TIMEOUT_S = 6 * 3_600


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

    async def work() -> tuple[BackupSummary, int, RestoreReport]:
        settings = load()
        await _check_redis(settings)
        summary = await restore_database(directory, settings.database())
        connection = await connect(settings.database(), name="migrate", timeout_s=_MIGRATION_TIMEOUT_S)
        try:
            await migrate(connection)
        finally:
            await connection.close()
        async with open_cli_services(settings) as shop:
            pictures = await restore_pictures(shop, directory / PICTURES)
            return summary, pictures, await restore_redis(shop, directory)

    summary, pictures, report = run_change(work())
    print_line(
        f"restored the state of {summary.created_at:%Y-%m-%d %H:%M:%S} UTC: {report.sales} sales are loaded, "
        f"{pictures} pictures are stored; now audit"
    )
    if report.dead_letters:
        print_line(f"{report.dead_letters} of the orders that waited are dead letters; retry or discard them")


async def _check_redis(settings: Settings) -> None:
    """Check that Redis takes writes, before anything is restored."""
    timeout_ms = settings.limits.redis_call_timeout_ms
    redis = open_redis(settings.redis(), timeout_ms=timeout_ms, connections=1, name="restore")
    try:
        await check_writable(redis)
    finally:
        await redis.aclose()
