"""Problems that rates answer with."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import Invalid, NotFound


class InvalidRateTable(Invalid):
    """The table has errors, and a table is imported whole or not at all.

    `line_errors` names each wrong line.
    """

    title = "The rate table cannot be imported"

    def __init__(self, detail: str, line_errors: Sequence[LineError] = ()) -> None:
        super().__init__(detail)
        self.line_errors = line_errors


class NoRateTable(NotFound):
    title = "There is no rate table"
