"""The parts for production: gateway, worker, migrate; and `up`, which is all of them on one machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.migrations import migrate as apply_migrations
from commerce.kernel.postgres import connect
from config.settings import load
from ops.commands.console import exit_on_error, out, run
from workers.__main__ import NAMES

WorkerName = StrEnum("WorkerName", {name: name for name in NAMES})  # type: ignore[misc]


def gateway() -> None:
    """Run one gateway process. Start as many as the machine has cores: they share the port."""
    from gateway.__main__ import main  # noqa: PLC0415  # metrics decide at import where they count

    with exit_on_error():
        main()


def worker(
    names: Annotated[list[WorkerName], typer.Argument(help="what this process shall do", metavar="NAME...")],
    instance: Annotated[str, typer.Option(help="tells several processes on one machine apart")] = "main",
) -> None:
    """Run workers in one process: order_writer, release_worker, payment_worker, sale_sync, observer, auditor."""
    from workers.__main__ import main  # noqa: PLC0415

    with exit_on_error():
        main([str(name) for name in names], instance)


def migrate() -> None:
    """Bring the database to this version's schema. Safe to repeat."""

    async def work() -> None:
        connection = await connect(load().database(), name="migrate", timeout_s=600)
        try:
            done = await apply_migrations(connection)
        finally:
            await connection.close()
        for migration in done:
            out.print(f"applied {migration.number:04} {migration.name}")
        if not done:
            out.print("nothing to do: the schema is this version's")

    run(work())


def up(
    data_dir: Annotated[Path | None, typer.Option(help="where embedded servers keep their data")] = None,
    demo: Annotated[bool, typer.Option(help="make a catalogue and a sale to try out")] = True,
) -> None:
    """Run a whole shop on this machine: Redis and Postgres unless REDIS_URL and DATABASE_URL name others, gateways,
    workers. Ctrl-C stops all of it; started again it finds its data."""
    from ops.local.up import up as bring_up  # noqa: PLC0415

    run(bring_up(data_dir, demo))
