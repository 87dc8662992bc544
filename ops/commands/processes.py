"""`floodgate up`, `gateway`, `worker` and `migrate`: the processes of a shop."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.migrations import migrate as apply_migrations
from commerce.kernel.postgres import connect
from commerce.kernel.schema_page import schema_page
from config.settings import load
from ops.commands.console import exit_on_error, print_line, print_text, run
from workers.registry import NAMES

WorkerName = StrEnum("WorkerName", {name: name for name in NAMES})  # type: ignore[misc]
_MIGRATION_TIMEOUT_S = 600


def gateway() -> None:
    """Run one gateway process. Start as many as the machine has cores: they share the port."""
    from gateway.__main__ import main  # noqa: PLC0415  # its metrics choose their storage when they are imported

    with exit_on_error():
        main()


def worker(
    names: Annotated[list[WorkerName], typer.Argument(help="the workers that this process runs", metavar="NAME...")],
    instance: Annotated[
        str, typer.Option(help="name of this process, unique among processes with equal workers on a machine")
    ] = "main",
) -> None:
    """Run one or more workers in one process.

    order_writer stores accepted orders; release_worker expires unpaid orders and releases stock; payment_worker calls
    payment providers; fulfilment_worker plans shipments and calls carriers; aftersales_worker moves returns on;
    picture_worker imports products and renders their pictures; product_indexer keeps what searches of products find;
    quality_worker grades products; sale_sync brings Redis to the state of Postgres; room_keeper keeps the waiting
    rooms; wait_list_keeper offers returned units; screening_worker scores suspected customers; retention_worker
    deletes old rows; observer measures queues; auditor checks the promises.
    """
    from workers.__main__ import main  # noqa: PLC0415  # as in `gateway`

    with exit_on_error():
        main([str(name) for name in names], instance)


def migrate(
    print_schema: Annotated[
        bool, typer.Option("--print-schema", help="print the schema as a Markdown page; apply nothing")
    ] = False,
) -> None:
    """Bring the database to this version's schema. Safe to repeat."""

    async def work() -> None:
        connection = await connect(load().database(), name="migrate", timeout_s=_MIGRATION_TIMEOUT_S)
        try:
            if print_schema:
                print_text((await schema_page(connection)).removesuffix("\n"))
                return
            applied = await apply_migrations(connection)
        finally:
            await connection.close()
        for migration in applied:
            print_line(f"applied {migration.number:04} {migration.name}")
        if not applied:
            print_line("nothing to apply: the schema is this version's")

    run(work())


def up(
    data_dir: Annotated[Path | None, typer.Option(help="folder for the data of embedded servers")] = None,
    demo: Annotated[bool, typer.Option(help="create demonstration products, sales and warehouses")] = True,
    restore: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            exists=True,
            file_okay=False,
            help="begin with a backup, in an empty data directory and without the demonstration",
        ),
    ] = None,
) -> None:
    """Run a whole shop on this machine: gateways, workers, Redis and Postgres.

    REDIS_URL and DATABASE_URL replace the embedded servers. Ctrl-C stops everything; the data is kept for the next
    start. With --restore, if it fails, repeat it; once it is done, start without it.
    """
    from ops.local.up import up as run_local_stack  # noqa: PLC0415  # slow to load

    run(run_local_stack(data_dir, demo, restore))
