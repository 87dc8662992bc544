"""Output, errors, arguments and running of commands."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE as DATABASE_DOWN
from commerce.kernel.redis_client import REDIS_UNAVAILABLE as REDIS_DOWN
from config.settings import SettingsError

Result = TypeVar("Result")
Content = TypeVar("Content")
_FILE_WIDTH = 140  # of what goes into a file or another program, where no terminal says how wide it is
out = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """An expected refusal ends the command with one line and status 1, not with a traceback."""
    try:
        yield
    except (ProblemError, SettingsError) as error:
        fail(str(error))
    except (*DATABASE_DOWN, *REDIS_DOWN) as error:
        fail(f"a database cannot be reached: {error or type(error).__name__}")


def fail(message: str) -> None:
    """Say what is wrong on standard error and end with status 1."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code to its end, with errors in plain words."""
    with exit_on_error():
        return uvloop.run(work)
    raise AssertionError  # plain_errors ends the command


def parse_argument(given: object, kind: type[Content], otherwise: str | None = None) -> Content:
    """Words from the command line as what they should be. Raises `Invalid`, which says `otherwise`."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Invalid(otherwise or str(error)) from None


def actor() -> str:
    """Who gives a command, as it is recorded."""
    return f"cli {getpass.getuser()}"


def interactive() -> bool:
    """Whether somebody watches, so that a progress bar is of use."""
    return sys.stderr.isatty()
