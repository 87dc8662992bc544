"""What rates refuse."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import Invalid, NotFound


class InvalidRateTable(Invalid):
    """A table is imported whole or not at all. `faults` has every line that is wrong, with all that is wrong there."""

    title = "The rate table cannot be imported"

    def __init__(self, detail: str, faults: Sequence[LineError] = ()) -> None:
        super().__init__(detail)
        self.faults = faults


class NoRateTable(NotFound):
    title = "There is no rate table"


class NoChoice(NotFound):
    title = "No carrier was chosen"
