"""Reads the form of all statements of Alipay: remarks, headings, rows, a remark that ends them.

Lines with a leading # are remarks, the first other one has the headings. Cells are padded with tabs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Line = TypeVar("Line")


def read_rows(
    text: str, required: Sequence[str], end: str, read_row: Callable[[Mapping[str, str]], Line]
) -> Iterator[Line | str]:
    """Yield what `read_row` makes of each row, or why a row cannot be read.

    A text is also yielded if a required column is missing, and if no remark contains `end`."""
    headings: list[str] = []
    line_no, ended = 0, False
    for line_no, padded in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = padded.strip()
        if not line or line.startswith("#"):
            ended = ended or end in line
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if not headings:
                headings = cells
                if missing := [name for name in required if name not in cells]:
                    yield f"line {line_no}: no column {', '.join(missing)}, so nothing below can be read"
                    return
                continue
            if len(cells) != len(headings):
                raise ValueError(f"{len(cells)} cells under {len(headings)} headings")
            yield read_row(dict(zip(headings, cells, strict=True)))
        except (ValueError, csv.Error) as reason:
            yield f"line {line_no}: {reason}"
    if not ended:
        yield f"line {line_no}: the statement is cut short, {end} is missing"
