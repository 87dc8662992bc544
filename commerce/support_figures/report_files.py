"""A report as CSV and as a picture.

Matplotlib is loaded when a picture is drawn: it is slow and needs much memory.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

import msgspec

from commerce.kernel.optional import require_extra
from commerce.support_figures.model import AftersalesReport, ClockFigures

_SECTIONS = ("clocks", "backlog", "satisfaction", "decisions", "returns")
_LABELS = ("group", "clock", "key", "value", "rule_set_version", "rule_no", "outcome")
_MAX_BARS = 20
_COLOURS = ("#1b6ca8", "#9fc5e0")


def write_csv(report: AftersalesReport, target: TextIO) -> None:
    """Write one line per figure: section, group, subject, figure, value."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("section", "group", "subject", "figure", "value"))
    for section in _SECTIONS:
        for figures in getattr(report, section):
            values: dict[str, Any] = msgspec.to_builtins(figures)
            subject = " ".join(str(values[name]) for name in _LABELS[1:] if values.get(name) is not None)
            for name, value in values.items():
                if name not in _LABELS:
                    text = " ".join(map(str, value)) if isinstance(value, list) else value
                    writer.writerow((section, _plain(values.get("group", "")), _plain(subject), name, text))


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def draw_report(report: AftersalesReport, file: Path) -> None:
    """Draw the times of clocks and the shares within deadlines, as SVG or PNG by the file's suffix.

    Raises `NotReady` in an installation without the extra `fleet`."""
    require_extra("draw a report", "fleet", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional and slow to load

    figure = Figure(figsize=(12, 9), layout="constrained")
    times, shares = figure.subplots(2, 1)
    clocks = sorted(report.clocks, key=lambda clock: -clock.count)[:_MAX_BARS]
    names = [_name(clock) for clock in clocks]
    places = range(len(clocks))
    times.bar(places, [clock.worked_p90_s / 3600 for clock in clocks], color=_COLOURS[1], label="90 of 100")
    times.bar(places, [clock.worked_p50_s / 3600 for clock in clocks], color=_COLOURS[0], label="50 of 100")
    times.set_ylabel("hours of working time")
    times.set_title(f"Support by {report.by}, {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d}")
    if clocks:
        times.legend(frameon=False)
    shares.bar(places, [100 * (clock.within_deadline or 0) for clock in clocks], color=_COLOURS[0])
    shares.set_ylabel("per cent within the deadline")
    shares.set_ylim(0, 100)
    for axes in (times, shares):
        axes.set_xticks(places, names, rotation=30, ha="right")
        axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def _name(clock: ClockFigures) -> str:
    name = clock.clock.replace("_", " ")
    # Matplotlib would read text between dollar signs as a formula.
    return f"{clock.group}: {name}".replace("$", r"\$") if clock.group else name
