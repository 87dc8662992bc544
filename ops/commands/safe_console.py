"""Output on a terminal, a pipe or a file, without markup; the only module that uses `rich`.

Texts of customers, carriers and files are printed as they are: no markup, no emoji codes, no escape sequences.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from commerce.kernel.standard_streams import escape_unprintable

_FILE_SIZE = ConsoleDimensions(100_000, 25)
"""A file or a pipe has no width: nothing is broken or cut there, because programs read it."""


class SafeConsole(Console):
    """A console that prints every string literally."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string. `rich` calls this for all strings that it prints: those of tables and titles, too."""
        return super().render_str(
            escape_unprintable(text), **{**options, "markup": False, "emoji": False, "highlight": False}
        )

    @property  # type: ignore[misc]  # nothing sets it
    def size(self) -> ConsoleDimensions:
        return super().size if self.is_terminal else _FILE_SIZE


class Table(RichTable):
    """A table that breaks what is too long for the terminal, and cuts nothing."""

    def __init__(self, *headers: str, title: str | None = None, show_header: bool = True) -> None:
        super().__init__(*(Column(header, overflow="fold") for header in headers), title=title, show_header=show_header)


out = SafeConsole()
err = SafeConsole(stderr=True)


def is_interactive() -> bool:
    """Return True if standard error is a terminal, so that a progress bar is of use."""
    return sys.stderr.isatty()


def create_progress_bar(*, in_percent: bool = False) -> Progress:
    """Return a progress bar, shown on a terminal only; it counts, or shows the share `in_percent`."""
    count_columns: list[ProgressColumn] = [MofNCompleteColumn(), TimeRemainingColumn()]
    if in_percent:
        count_columns = [TextColumn("{task.percentage:>3.0f} %", markup=False), TimeElapsedColumn()]
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *count_columns,
        console=err,
        disable=not is_interactive(),
        transient=True,
    )
