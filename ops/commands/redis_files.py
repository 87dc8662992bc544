"""`floodgate redis-files`: check and repair the append-only file of a stopped Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commerce.kernel.errors import Invalid, NotReady
from ops import append_only_file
from ops.commands.console import exit_on_error, print_line, print_table
from ops.commands.safe_console import Table
from ops.redis_versions import RedisVersion, explain_unreadable, read_server_version

app = typer.Typer(help="Check and repair the append-only file of a stopped Redis.", no_args_is_help=True)
Directory = Annotated[
    Path, typer.Argument(metavar="DIRECTORY", exists=True, file_okay=False, help="`dir` of redis.conf")
]


@app.command()
def check(
    directory: Directory,
    server: Annotated[str, typer.Option(help="the program that is to read the files")] = "redis-server",
) -> None:
    """Check that a Redis or Valkey reads these files; one older than 7 would ignore them and start empty."""
    with exit_on_error():
        version = _read_version(server)
        writer = append_only_file.find_writer(directory)
        files = append_only_file.list_command_files(directory)
        if writer is not None and (reason := explain_unreadable(version, writer)):
            raise NotReady(
                f"cannot use {directory} with {version}: {writer} or newer wrote it, and this one {reason}; install it"
            )
    print_line(f"{version} reads {', '.join(file.name for file in files)}")


@app.command("cut-flush")
def cut_flush(
    directory: Directory,
    at: Annotated[
        str | None, typer.Option(metavar="FILE:BYTE", help="which one to cut off, if there are several")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Cut a FLUSHALL or FLUSHDB, and all after it, off the append-only file.

    Stop Redis and copy the file first.
    """
    with exit_on_error():
        append_only_file.require_stopped(directory)
        flushes = append_only_file.find_flushes(directory)
        if not flushes and append_only_file.is_flush_rewritten(directory):
            raise NotReady(
                f"cannot cut {directory}: a rewrite after the flush dropped what was before it; use a copy of the files"
            )
        if not flushes:
            raise NotReady(
                f"cannot cut {directory}: it holds no FLUSHALL or FLUSHDB, perhaps since a rewrite; use a copy"
            )
        _print(flushes)
        places = {f"{flush.file.name}:{flush.offset}": flush for flush in flushes}
        if at is None and len(flushes) > 1:
            raise Invalid("--at: there are several; name the one that did the damage, such as " + list(places)[-1])
        flush = places.get(at or next(iter(places)))
        if flush is None:
            raise Invalid(f"--at: {at} is none of these")
        if not yes:
            typer.confirm(f"Cut {flush.file} at byte {flush.offset}?", abort=True)
        append_only_file.cut_off(directory, flush)
    print_line(f"{flush.file} ends before its {flush.command} now")


def _print(flushes: list[append_only_file.Flush]) -> None:
    table = Table("at", "command", "commands after it")
    for flush in flushes:
        table.add_row(f"{flush.file.name}:{flush.offset}", flush.command, str(flush.later_commands))
    print_table(table)


def _read_version(server: str) -> RedisVersion:
    version = read_server_version(server)
    if version is None:
        raise NotReady(f"cannot read the version of {server}; name the program of Redis or Valkey with --server")
    return version
