"""Quality over time as CSV and as a picture.

Matplotlib is loaded when a picture is drawn: it is slow and needs much memory.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import TextIO

from commerce.kernel.optional import require_extra
from commerce.product_quality.model import LOWEST_POINTS, Grade, QualityHistory

_COLOURS: dict[Grade, str] = {"A": "#2e8b57", "B": "#8fbc5a", "C": "#e3c34d", "D": "#d98032", "E": "#b3433c"}
_MAX_TICKS = 20


def write_quality_csv(report: QualityHistory, target: TextIO) -> None:
    """Write a line for each day and category: products, average points, and the number of each grade."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("day", "category", "products", "average_points", *LOWEST_POINTS))
    for row in report.rows:
        numbers = (row.products, row.average_points, *(row.grades[grade] for grade in LOWEST_POINTS))
        writer.writerow((row.day.isoformat(), row.category_id or "", *numbers))


def draw_quality(report: QualityHistory, file: Path) -> None:
    """Draw the shares of the grades and the average points over time, as SVG or PNG by the file's suffix.

    Raises `NotReady` in an installation without the extra `fleet`."""
    require_extra("draw a report", "fleet", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional and slow to load

    counts: defaultdict[date, dict[Grade, int]] = defaultdict(lambda: dict.fromkeys(LOWEST_POINTS, 0))
    lines: defaultdict[str, dict[date, float]] = defaultdict(dict)
    for row in report.rows:
        for grade, count in row.grades.items():
            counts[row.day][grade] += count
        lines[row.category_id or "without a category"][row.day] = row.average_points
    days = sorted(counts)
    places = {day: place for place, day in enumerate(days)}
    figure = Figure(figsize=(12, 9), layout="constrained")
    shares, averages = figure.subplots(2, 1)
    below = [0.0] * len(days)
    for grade, colour in _COLOURS.items():
        heights = [counts[day][grade] / max(1, sum(counts[day].values())) for day in days]
        shares.bar(range(len(days)), heights, bottom=below, color=colour, label=grade, width=0.9)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    shares.set_ylabel("share of products")
    status = "on sale" if report.is_on_sale else "in draft"
    shares.set_title(f"quality of products {status}, {report.start} to {report.end}")
    for name, points in sorted(lines.items()):
        label = "all" if report.by == "total" else name
        x = [places[day] for day in points]
        # Matplotlib would read text between dollar signs as a formula.
        averages.plot(x, list(points.values()), label=label.replace("$", r"\$"), linewidth=1.2, marker=".")
    averages.set_ylabel("average points")
    averages.set_ylim(0, 100)
    step = max(1, len(days) // _MAX_TICKS)
    for axes in (shares, averages):
        axes.set_xticks(range(0, len(days), step), [day.isoformat() for day in days[::step]], rotation=30, ha="right")
        axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        if days:
            axes.legend(frameon=False, ncols=5)
    figure.savefig(file, dpi=110, bbox_inches="tight")
