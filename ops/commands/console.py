"""Console output, error exits, arguments and running of commands, shared by all command modules."""

from __future__ import annotations

import csv
import errno
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer
import uvloop
from msgspec import structs

from commerce.kernel.csv_rows import ImportReport, LineError
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.outages import DATABASES_UNAVAILABLE, explain_outage
from commerce.kernel.paging import Page
from commerce.kernel.standard_streams import escape_unprintable, open_standard_streams, output_error
from commerce.kernel.text_files import has_surrogates
from commerce.kernel.types import explain_mismatch
from config.settings import SettingsError
from ops.commands.safe_console import Table, err, out

Result = TypeVar("Result")
Content = TypeVar("Content")
_MAX_PRINTED_ERRORS = 50
_MAX_ACTOR_CHARS = 100


def check_writable(context: typer.Context, file: Path | None) -> Path | None:
    """Check that an option's file can be written, so that a wrong path does not cost the result.

    Ends the command if it is another file of the command line, which would be lost.
    """
    if file is None or file.is_char_device() or file.is_fifo():
        return file
    for other in context.params.values():
        if isinstance(other, Path) and _is_same_file(file, other):
            fail(f"cannot write {file}: it is a file of this command already; name another file")
    try:
        _check_opens(Path(os.path.realpath(file)))
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}; name another file")
    return file


def _check_opens(target: Path) -> None:
    """Check that a file opens for writing; it stays as it is.

    `target` must be no link: a dangling one would be removed.
    """
    try:
        target.open("xb").close()
    except FileExistsError:
        target.open("ab").close()
    else:
        target.unlink()


def _is_same_file(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:  # one of them does not exist yet
        return os.path.realpath(file) == os.path.realpath(other)


CsvFile = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        readable=True,
        metavar="FILE.csv",
        is_eager=True,  # `check_writable` of the report needs it
    ),
]
ReportFile = Annotated[
    Path | None, typer.Option(callback=check_writable, help="write every refused line to this CSV file")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON with all values instead of a table")]


@dataclass
class _Command:
    """The command of this process: once it `has_changed` the shop, its output decides no status."""

    has_changed: bool = False


_command = _Command()


# Running and errors.


def run_app(app: Callable[[], None]) -> NoReturn:
    """Run the command line and end the process with the command's status.

    A reader that closes its pipe, such as `head`, changes no status. Other errors of output change the status of
    commands that only show something: a change that was made must not look as if it had failed.
    """
    open_standard_streams()
    status: object = 0
    try:
        _check_words(sys.argv[1:])
        app()
    except SystemExit as end:
        status = end.code
    except Exception as error:
        if not _command.has_changed:
            raise
        print_warning(f"the change is made, but cannot be shown: {type(error).__name__}: {error}; do not repeat it")
    lost = output_error()
    if lost is not None and lost.errno != errno.EPIPE:
        print_warning(f"cannot write the output: {lost.strerror}; a part of it is lost")
        status = status or (0 if _command.has_changed else 1)
    sys.exit(status)  # type: ignore[arg-type]


def _check_words(words: Sequence[str]) -> None:
    """End the process if a word of the command line is not UTF-8, unless it is the name of a file."""
    for word in words:
        if has_surrogates(word) and not Path(word).exists():
            print_detail(f"error: {word} is not UTF-8; type it again, or rename the file")
            sys.exit(2)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the command with one line and status 1, not with a traceback, if an expected error is raised."""
    try:
        yield
    except (ProblemError, SettingsError) as error:
        fail("; ".join([str(error), *getattr(error, "__notes__", ())]))
    except DATABASES_UNAVAILABLE as error:
        fail("; ".join([explain_outage(error), *getattr(error, "__notes__", ())]))


def fail(message: str) -> NoReturn:
    """Print an error on standard error and end the command with status 1."""
    err.print("error:", style="bold red", end=" ")
    err.print(message, soft_wrap=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code and return its result; expected errors end the command as `exit_on_error` does."""
    with exit_on_error():
        return uvloop.run(work)
    raise AssertionError  # exit_on_error has ended the command


def run_change(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code that changes the shop, as `run` does.

    From then on no error of output makes the command fail: who sees a failure repeats the change.
    """
    result = run(work)
    _command.has_changed = True
    return result


# Arguments.


def parse_argument(value: object, kind: type[Content], message: str | None = None) -> Content:
    """Convert a value from the command line to `kind`.

    Raises `Invalid` with `message`, or else with msgspec's reason, if the value does not fit.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(message or explain_mismatch(error)) from None


async def list_all(read_page: Callable[[str | None], Awaitable[Page[Content]]]) -> list[Content]:
    """Return the items of all pages of a list."""
    page = await read_page(None)
    items = page.items
    while page.next is not None:
        page = await read_page(page.next)
        items += page.items
    return items


def get_actor() -> str:
    """Return the name under which this user's commands are recorded; a user may have a number only."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return escape_unprintable(f"cli {name}")[:_MAX_ACTOR_CHARS]


# Output.


def print_line(text: str) -> None:
    """Print a sentence on a line of its own; line feeds within it are escaped."""
    print_text(text.replace("\n", "\\n"))


def print_detail(text: str) -> None:
    """Print a line on standard error that belongs to the result and is not for programs to read."""
    err.print(text.replace("\n", "\\n"), soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning on standard error."""
    err.print(text, style="yellow", soft_wrap=True)


def print_table(table: Table, empty: str = "") -> None:
    """Print a table, or the sentence `empty` if it has no rows."""
    if empty and not table.row_count:
        print_line(empty)
    else:
        out.print(table)


def print_values(values: Iterable[tuple[str, object]]) -> None:
    """Print names and values as a table without a header."""
    table = Table("", "", show_header=False)
    for name, value in values:
        table.add_row(name, str(value))
    out.print(table)


def print_text(text: str) -> None:
    """Print a text of several lines as it is, to be copied or read by a program."""
    sys.stdout.write(f"{escape_unprintable(text)}\n")
    sys.stdout.flush()


def print_json(value: object) -> None:
    """Print a struct as indented JSON."""
    print_text(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def format_time(moment: datetime | None) -> str:
    """Format a moment in UTC to the second; None becomes an empty text."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def print_import_report(report: ImportReport, report_file: Path | None) -> None:
    """Print how many lines an import added, changed and refused.

    Ends the command with status 2 if any line was refused.
    """
    print_line(
        f"{report.lines} lines: {report.added} added, {report.changed} changed, {report.unchanged} unchanged, "
        f"{len(report.errors)} refused" + (f", {report.blank} blank" if report.blank else "")
    )
    print_line_errors(report.errors, report_file)
    if report.errors:
        raise typer.Exit(2)


def _write_line_errors(errors: Sequence[LineError], report_file: Path) -> None:
    try:
        with report_file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as target:
            csv.writer(target, lineterminator="\n").writerows([("line", "reason"), *map(structs.astuple, errors)])
    except OSError as error:  # the disk is full: what was imported is imported, and the errors are printed
        print_warning(f"cannot write {report_file}: {error.strerror}; import the file again for the whole list")


def print_line_errors(errors: Sequence[LineError], report_file: Path | None) -> None:
    """Print the first refused lines on standard error, and write all of them to `report_file` as CSV."""
    if report_file is not None:
        _write_line_errors(errors, report_file)
    for error in errors[:_MAX_PRINTED_ERRORS]:
        print_detail(f"  line {error.line}: {error.reason}")
    if len(errors) > _MAX_PRINTED_ERRORS:
        print_detail(f"  and {len(errors) - _MAX_PRINTED_ERRORS} more; --report FILE lists all of them")
