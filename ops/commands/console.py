"""Console output, error exits, arguments and running of commands, shared by all command modules."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from commerce.kernel.csv_rows import ImportReport, LineError
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from config.settings import SettingsError

Result = TypeVar("Result")
Content = TypeVar("Content")
CsvFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE.csv")]
ReportFile = Annotated[Path | None, typer.Option(help="write every refused line to this CSV file")]
_MAX_PRINTED_ERRORS = 50
_FILE_WIDTH = 140
"""columns of output that goes to a file or a pipe, where no terminal has a width"""
out = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)


# Errors.


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command with one line and status 1, not with a traceback, if an expected error is raised."""
    try:
        yield
    except (ProblemError, SettingsError) as error:
        fail(str(error))
    except (*POSTGRES_UNAVAILABLE, *REDIS_UNAVAILABLE) as error:
        fail(
            f"cannot reach a database: {error or type(error).__name__}; check that Redis and Postgres run, and that "
            "REDIS_URL and DATABASE_URL name them"
        )


def fail(message: str) -> None:
    """Print an error on standard error and end the command with status 1."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code and return its result; expected errors end the command as `exit_on_error` does."""
    with exit_on_error():
        return uvloop.run(work)
    raise AssertionError  # exit_on_error has ended the command


# Arguments.


def parse_argument(value: object, kind: type[Content], message: str | None = None) -> Content:
    """Convert a value from the command line to `kind`.

    Raises `Invalid` with `message`, or else with msgspec's reason, if the value does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(message or str(error)) from None


def get_actor() -> str:
    """Return the name under which this user's commands are recorded."""
    return f"cli {getpass.getuser()}"


# Output.


def print_line(text: str) -> None:
    """Print a sentence on a line of its own. Texts of customers and carriers are not read as markup."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def print_plain(content: Table | str) -> None:
    """Print a table or a text. Texts of customers and carriers are not read as markup."""
    out.print(content, highlight=False, markup=False)


def print_json(value: object) -> None:
    """Print a struct as indented JSON."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def format_time(moment: datetime | None) -> str:
    """Format a moment in UTC to the second; None becomes an empty text."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def print_import_report(report: ImportReport, report_file: Path | None) -> None:
    """Print how many lines an import added, changed and refused.

    Ends the command with status 2 if any line was refused.
    """
    out.print(
        f"{report.lines} lines: {report.added} added, {report.changed} changed, {report.unchanged} unchanged, "
        f"{len(report.errors)} refused",
        highlight=False,
    )
    print_line_errors(report.errors, report_file)
    if report.errors:
        raise typer.Exit(2)


def print_line_errors(errors: Sequence[LineError], report_file: Path | None) -> None:
    """Print the first refused lines on standard error, and write all of them to `report_file` as CSV."""
    if report_file is not None:
        with report_file.open("w", encoding="utf-8") as target:
            target.write("line,reason\n")
            target.writelines(f'{error.line},"{error.reason.replace(chr(34), chr(39))}"\n' for error in errors)
    for error in errors[:_MAX_PRINTED_ERRORS]:
        err.print(f"  line {error.line}: {error.reason}", highlight=False, markup=False, soft_wrap=True)
    if len(errors) > _MAX_PRINTED_ERRORS:
        err.print(f"  and {len(errors) - _MAX_PRINTED_ERRORS} more; --report FILE lists all of them", highlight=False)


def create_progress_bar() -> Progress:
    """Return a progress bar on standard error, shown on a terminal only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not is_interactive(),
        transient=True,
    )


def is_interactive() -> bool:
    """Return True if standard error is a terminal, so that a progress bar is of use."""
    return sys.stderr.isatty()
