"""Report of a benchmark: tables, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from commerce.kernel.durable_files import replace_file
from loadtest.bench.comparison import Measurement, cpu_ratio, rate_ratio
from loadtest.bench.order_writing import SustainedLoad, WriteMeasurement
from loadtest.bench.peers import FASTAPI, FLOODGATE, HELLO, HELLO_TO_ORDER, NGINX
from loadtest.bench.pipeline_figures import PipelineFigures
from loadtest.bench.pipeline_report import show_pipeline
from loadtest.bench.pricing_figures import PricingFigures, show_pricing
from loadtest.bench.rush_figures import RushFigures
from loadtest.bench.rush_report import show_rush
from loadtest.bench.scaling import Scaling
from loadtest.bench.search_figures import ProductSearchFigures, show_search
from loadtest.bench.stranger_figures import StrangerFigures, show_strangers
from loadtest.bench.support_figures import SupportLoadFigures, show_support
from loadtest.bench.tokens import TokenFigures, show_tokens
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

_BARS = {"server": "#2a6f97", "redis": "#e07a5f"}


_SEPARATE_PARTS = ("rush", "pipeline", "pricing", "support", "tokens", "crowd", "search")
"""parts that may be measured in runs of their own"""
_JSON_MEMBERS = {
    "comparisons": "turns",
    "sustained_load": "pace",
    "long_sustained_load": "long_pace",
    "scaling": "shape",
    "skipped": "left_out",
}


class Figures(msgspec.Struct, rename=_JSON_MEMBERS):
    """All measurements of one run, in the form of docs/benchmarks/latest.json."""

    at: datetime
    machine: dict[str, str | int]
    options: dict[str, float]
    comparisons: dict[str, list[Measurement]] = {}
    writing: list[WriteMeasurement] = []
    sustained_load: SustainedLoad | None = None
    long_sustained_load: SustainedLoad | None = None
    scaling: Scaling | None = None
    in_memory: dict[str, list[Measurement]] = {}
    rush: RushFigures | None = None
    pipeline: PipelineFigures | None = None
    pricing: PricingFigures | None = None
    support: SupportLoadFigures | None = None
    tokens: TokenFigures | None = None
    crowd: StrangerFigures | None = None
    search: ProductSearchFigures | None = None
    skipped: dict[str, str] = {}

    def is_empty(self) -> bool:
        """Tell whether no part was measured."""
        return not (self.separate_parts() or self.has_common_parts())

    def separate_parts(self) -> list[str]:
        """Return the names of the measured parts that have a member of their own."""
        return [name for name in _SEPARATE_PARTS if getattr(self, name) is not None]

    def has_common_parts(self) -> bool:
        """Tell whether any other part was measured."""
        return bool(self.comparisons or self.writing or self.scaling or self.in_memory)

    def ratios(self) -> dict[str, float]:
        """Return the ratios that have thresholds; each compares two measurements of this run."""
        ratios = {
            name: compute(self.comparisons, FLOODGATE, other)
            for name, other, compute in (
                ("cpu_vs_aiohttp_hello", HELLO, cpu_ratio),
                ("cpu_vs_aiohttp_hello_to_order", HELLO_TO_ORDER, cpu_ratio),
                ("cpu_vs_nginx_lua", NGINX, cpu_ratio),
                ("orders_vs_nginx_lua", NGINX, rate_ratio),
                ("orders_vs_fastapi", FASTAPI, rate_ratio),
            )
            if other in self.comparisons
        }
        if self.writing:
            ratios["writer_vs_copy"] = median(
                measurement.writer_per_s / measurement.copy_per_s for measurement in self.writing
            )
        for name, other in (("memory_cpu_vs_aiohttp_hello", HELLO), ("memory_cpu_vs_nginx_lua", NGINX)):
            if other in self.in_memory:
                ratios[name] = cpu_ratio(self.in_memory, FLOODGATE, other)
        return {name: round(ratio, 3) for name, ratio in ratios.items()}


def show(figures: Figures) -> None:
    """Print the tables and the ratios."""
    for title, measurements in (
        ("Redis syncs every write", figures.comparisons),
        ("nothing on disk", figures.in_memory),
    ):
        if measurements:
            print_table(_create_table(title, measurements))
    if figures.writing:
        writer_rates = [measurement.writer_per_s for measurement in figures.writing]
        copy_rates = [measurement.copy_per_s for measurement in figures.writing]
        print_line(
            f"writer: {format_spread(writer_rates, 0)} orders/s, "
            f"plain COPY of the same rows: {format_spread(copy_rates, 0)}"
        )
    for title, load in (("full load", figures.sustained_load), ("70% of the peak", figures.long_sustained_load)):
        if load:
            print_line(
                f"accept and store, {title}: {load.accepted_per_s:.0f} accepted/s, {load.stored_per_s:.0f} stored/s; "
                f"{load.backlog} were waiting when the load ended, all were stored {load.drained_s:.1f} s later"
            )
    if figures.scaling:
        _show_scaling(figures.scaling)
    _show_separate_parts(figures)
    for name, reason in figures.skipped.items():
        print_line(f"skipped: {name}: {reason}")
    print_line(str(figures.ratios()))


def _show_separate_parts(figures: Figures) -> None:
    if figures.rush:
        show_rush(figures.rush)
    if figures.pipeline:
        show_pipeline(figures.pipeline)
    if figures.pricing:
        show_pricing(figures.pricing)
    if figures.support:
        show_support(figures.support)
    if figures.tokens:
        show_tokens(figures.tokens)
    if figures.crowd:
        show_strangers(figures.crowd)
    if figures.search:
        show_search(figures.search)


def _create_table(title: str, measurements_by_server: dict[str, list[Measurement]]) -> Table:
    table = Table("server", "answers/s", "CPU µs per answer", "of which", "p50 ms", "p99 ms", title=title)
    for name, measurements in measurements_by_server.items():
        kinds = ", ".join(
            f"{kind} {median(measurement.cpu_us[kind] for measurement in measurements):.1f}"
            for kind in measurements[0].cpu_us
        )
        table.add_row(
            name,
            format_spread([measurement.per_s for measurement in measurements], 0),
            format_spread([measurement.cpu for measurement in measurements], 1),
            kinds,
            format_spread([measurement.p50_ms for measurement in measurements], 1),
            format_spread([measurement.p99_ms for measurement in measurements], 1),
        )
    return table


def _show_scaling(scaling: Scaling) -> None:
    for dimension, costs in (
        ("connections", scaling.cpu_by_connections),
        ("SKUs", scaling.cpu_by_skus),
        ("orders waiting", scaling.cpu_by_backlog),
    ):
        print_line(
            f"CPU µs per order by {dimension}: " + ", ".join(f"{size:,}: {cost:.1f}" for size, cost in costs.items())
        )
    print_line(f"Redis memory per waiting order: {scaling.redis_bytes_per_waiting_order:.0f} bytes")
    for title, measurements in (
        ("alone", scaling.half_load),
        ("with 1,000 slow senders", scaling.half_load_with_slow_senders),
        ("with 1,000 idle connections", scaling.half_load_with_idle_connections),
    ):
        if measurements:
            print_line(
                f"half of the peak, {title}: {median(measurement.per_s for measurement in measurements):.0f} orders/s, "
                f"p50 {format_spread([measurement.p50_ms for measurement in measurements], 2)} ms, "
                f"p99 {format_spread([measurement.p99_ms for measurement in measurements], 2)} ms"
            )
    print_line(f"p99 beside other connections divided by p99 alone: {scaling.compute_crowding()}")


def format_spread(values: Sequence[float], digits: int) -> str:
    """Format the median, the minimum and the maximum."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write(figures: Figures, directory: Path) -> None:
    """Write `latest.json` to a directory, and `latest.svg` if servers were compared.

    The parts with a member of their own and the others may be measured in different runs: what a run has not measured
    stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "latest.json"
    earlier = msgspec.json.decode(file.read_bytes(), type=dict[str, Any]) if file.exists() else {}
    spreads = figures.scaling.spreads() if figures.scaling else {}
    crowding = figures.scaling.compute_crowding() if figures.scaling else {}
    content = {"ratios": figures.ratios(), "spreads": spreads, "crowding": crowding, **msgspec.to_builtins(figures)}
    measured = figures.separate_parts()
    if earlier and not figures.has_common_parts():
        skipped = {name: reason for name, reason in earlier["left_out"].items() if not name.startswith((*measured,))}
        parts = {name: content[name] for name in measured}
        content = {**earlier, **parts, "left_out": {**skipped, **figures.skipped}}
    else:
        content |= {name: earlier[name] for name in _SEPARATE_PARTS if name not in measured and earlier.get(name)}
    replace_file(file, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    if figures.comparisons:
        replace_file(directory / "latest.svg", draw_picture(figures).encode())


def draw_picture(figures: Figures) -> str:
    """Draw the processor time per answer as bars by kind of process, as SVG."""
    medians = {
        name: {
            kind: median(measurement.cpu_us[kind] for measurement in measurements) for kind in measurements[0].cpu_us
        }
        for name, measurements in figures.comparisons.items()
    }
    longest = max(sum(kinds.values()) for kinds in medians.values())
    height = 40 * len(medians) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}"',
        'font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="24" font-weight="bold">Processor time per answer, µs ({figures.at:%Y-%m-%d})</text>',
    ]
    for row, (name, kinds) in enumerate(medians.items()):
        x, y = 150.0, 40 + 40 * row
        parts.append(f'<text x="10" y="{y + 20}">{name}</text>')
        for kind, value in kinds.items():
            width = value / longest * 480
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="28" fill="{_BARS[kind]}">'
                f"<title>{kind}: {value:.1f} µs</title></rect>"
            )
            x += width
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 20}">{sum(kinds.values()):.1f}</text>')
    parts.append(f'<text x="150" y="{height - 8}" font-size="12">blue: the server; red: Redis</text>')
    return "\n".join([*parts, "</svg>", ""])
