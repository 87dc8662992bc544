"""A report on sales as CSV and as a picture.

Matplotlib is loaded when a picture is drawn: it is slow and needs much memory.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from commerce.kernel.optional import require_extra
from commerce.sales_figures.model import ReasonFigures, SalesFigures, SalesReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = ("group", "sku", "figure", "reason", "currency")
_MAX_BARS = 20
_COLOURS = ("#1b6ca8", "#9fc5e0", "#d98032", "#b3433c", "#777777")
_STAGES: tuple[tuple[str, Callable[[SalesFigures], int]], ...] = (
    ("views", lambda row: row.views),
    ("put into carts", lambda row: row.carted),
    ("orders", lambda row: row.orders),
    ("paid orders", lambda row: row.paid_orders),
)
_LINES: tuple[tuple[str, Callable[[SalesFigures], int]], ...] = (
    ("ordered", lambda row: row.units),
    ("paid", lambda row: row.paid_units),
    ("lapsed unpaid", lambda row: row.lapsed_units),
    ("cancelled", lambda row: row.cancelled_units),
    ("refused orders", lambda row: row.sold_out),
)


def write_sales_csv(report: SalesReport, target: TextIO) -> None:
    """Write one line per figure: section, group, reason, currency, figure, value."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("section", "group", "reason", "currency", "figure", "value"))
    for section in ("totals", "rows", "stock", "reasons"):
        for row in getattr(report, section):
            values: dict[str, Any] = msgspec.to_builtins(row)
            group, currency = values.get("group", values.get("sku", "")), values.get("currency", "")
            for name, value in values.items():
                if name not in _LABELS:
                    figure = f"{values['figure']}_{name}" if section == "reasons" else name
                    writer.writerow((section, group, values.get("reason", ""), currency, figure, value))


def draw_sales(report: SalesReport, file: Path) -> None:
    """Draw the way from the view to the payment, and units by group, as SVG or PNG by the file's suffix.

    Raises `NotReady` in an installation without the extra `fleet`."""
    require_extra("draw a report", "fleet", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional and slow to load

    figure = Figure(figsize=(12, 9), layout="constrained")
    stages, groups = figure.subplots(2, 1)
    counts = [sum(count(row) for row in report.totals) for _, count in _STAGES]
    bars = stages.barh([name for name, _ in _STAGES], counts, color=_COLOURS[0])
    stages.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    stages.invert_yaxis()
    name = report.sale_id or "all sales"
    # Matplotlib would read text between dollar signs as a formula.
    title = f"{name}{f', {report.sku}' if report.sku else ''}, {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d}"
    stages.set_title(title.replace("$", r"\$"))
    if report.by == "reason":
        _draw_reasons(groups, report.reasons)
    elif report.by in ("day", "minute"):
        _draw_times(groups, report.rows)
    else:
        _draw_bars(groups, report.rows or report.totals)
    for axes in (stages, groups):
        axes.grid(visible=True, axis="x" if axes is stages else "y", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def _draw_times(axes: Axes, rows: Sequence[SalesFigures]) -> None:
    """Draw units over time, of all currencies together."""
    groups = sorted({row.group for row in rows})
    for (name, units), colour in zip(_LINES, _COLOURS, strict=True):
        by_group = dict.fromkeys(groups, 0)
        for row in rows:
            by_group[row.group] += units(row)
        axes.plot(range(len(groups)), list(by_group.values()), color=colour, label=name, linewidth=1.2)
    step = max(1, len(groups) // _MAX_BARS)
    axes.set_xticks(range(0, len(groups), step), groups[::step], rotation=30, ha="right")
    axes.set_ylabel("units")
    axes.legend(frameon=False)


def _draw_bars(axes: Axes, rows: Sequence[SalesFigures]) -> None:
    """Draw units of the groups with the most units."""
    rows = sorted(rows, key=lambda row: -row.units)[:_MAX_BARS]
    places = range(len(rows))
    axes.bar(places, [row.units for row in rows], color=_COLOURS[1], label="ordered")
    axes.bar(places, [row.sold_units for row in rows], color=_COLOURS[0], label="paid and not cancelled", width=0.5)
    _set_names(axes, [row.group or row.currency for row in rows])
    if rows:
        axes.legend(frameon=False)


def _draw_reasons(axes: Axes, rows: Sequence[ReasonFigures]) -> None:
    rows = rows[:_MAX_BARS]
    axes.bar(range(len(rows)), [row.units for row in rows], color=_COLOURS[0])
    _set_names(axes, [" ".join(filter(None, (row.figure, row.reason, row.sku))) for row in rows])


def _set_names(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.replace("$", r"\$") for name in names], rotation=30, ha="right")
    axes.set_ylabel("units")
