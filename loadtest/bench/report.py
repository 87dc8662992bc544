"""What a benchmark found: as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench.comparison import Measurement, cpu_ratio, rate_ratio
from loadtest.bench.order_writing import SustainedLoad, WriteMeasurement
from loadtest.bench.peers import FASTAPI, FLOODGATE, HELLO, HELLO_TO_ORDER, NGINX
from loadtest.bench.scaling import Scaling

_BARS = {"server": "#2a6f97", "redis": "#e07a5f"}


class Figures(msgspec.Struct):
    """Everything that was measured in one run."""

    at: datetime
    machine: dict[str, str | int]
    options: dict[str, float]
    turns: dict[str, list[Measurement]] = {}
    writing: list[WriteMeasurement] = []
    pace: SustainedLoad | None = None
    long_pace: SustainedLoad | None = None
    shape: Scaling | None = None
    in_memory: dict[str, list[Measurement]] = {}
    left_out: dict[str, str] = {}

    def ratios(self) -> dict[str, float]:
        """What thresholds are set on; each is a ratio inside this run."""
        found = {
            name: ratio(self.turns, FLOODGATE, other)
            for name, other, ratio in (
                ("cpu_vs_aiohttp_hello", HELLO, cpu_ratio),
                ("cpu_vs_aiohttp_hello_to_order", HELLO_TO_ORDER, cpu_ratio),
                ("cpu_vs_nginx_lua", NGINX, cpu_ratio),
                ("orders_vs_nginx_lua", NGINX, rate_ratio),
                ("orders_vs_fastapi", FASTAPI, rate_ratio),
            )
            if other in self.turns
        }
        if self.writing:
            found["writer_vs_copy"] = median(one.writer_per_s / one.copy_per_s for one in self.writing)
        for name, other in (("memory_cpu_vs_aiohttp_hello", HELLO), ("memory_cpu_vs_nginx_lua", NGINX)):
            if other in self.in_memory:
                found[name] = cpu_ratio(self.in_memory, FLOODGATE, other)
        return {name: round(ratio, 3) for name, ratio in found.items()}


def show(figures: Figures) -> None:
    """Print it."""
    console = Console(width=120)
    for title, turns in (("Redis syncs every write", figures.turns), ("nothing on disk", figures.in_memory)):
        if turns:
            console.print(_table(title, turns))
    if figures.writing:
        console.print(
            f"writer: {spread([one.writer_per_s for one in figures.writing], 0)} orders/s, "
            f"plain COPY of the same rows: {spread([one.copy_per_s for one in figures.writing], 0)}"
        )
    for title, pace in (("full load", figures.pace), ("70% of the peak", figures.long_pace)):
        if pace:
            console.print(
                f"accept and persist, {title}: {pace.accepted_per_s:.0f} accepted/s, {pace.stored_per_s:.0f} stored/s; "
                f"{pace.backlog} were waiting when the load ended, all were stored {pace.drained_s:.1f} s later"
            )
    if figures.shape:
        _show_shape(console, figures.shape)
    for name, why in figures.left_out.items():
        console.print(f"left out: {name}: {why}")
    console.print(figures.ratios())


def _table(title: str, contest: dict[str, list[Measurement]]) -> Table:
    table = Table("server", "answers/s", "CPU µs an answer", "of which", "p50 ms", "p99 ms", title=title)
    for name, turns in contest.items():
        kinds = ", ".join(f"{kind} {median(turn.cpu_us[kind] for turn in turns):.1f}" for kind in turns[0].cpu_us)
        table.add_row(
            name,
            spread([turn.per_s for turn in turns], 0),
            spread([turn.cpu for turn in turns], 1),
            kinds,
            spread([turn.p50_ms for turn in turns], 1),
            spread([turn.p99_ms for turn in turns], 1),
        )
    return table


def _show_shape(console: Console, shape: Scaling) -> None:
    for what, costs in (
        ("connections", shape.cpu_by_connections),
        ("SKUs", shape.cpu_by_skus),
        ("orders waiting", shape.cpu_by_backlog),
    ):
        console.print(f"CPU µs an order by {what}: " + ", ".join(f"{n:,}: {cost:.1f}" for n, cost in costs.items()))
    console.print(f"Redis memory a waiting order: {shape.redis_bytes_per_waiting_order:.0f} bytes")
    for what, turns in (
        ("alone", shape.half_load),
        ("with 1,000 slow senders", shape.half_load_with_slow_senders),
        ("with 1,000 idle connections", shape.half_load_with_idle_connections),
    ):
        if turns:
            console.print(
                f"half of the peak, {what}: {median(turn.per_s for turn in turns):.0f} orders/s, "
                f"p50 {spread([turn.p50_ms for turn in turns], 2)} ms, "
                f"p99 {spread([turn.p99_ms for turn in turns], 2)} ms"
            )
    console.print(f"p99 among a crowd by p99 alone: {shape.crowding()}")


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and from where to where the values go."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write(figures: Figures, directory: Path) -> None:
    """`latest.json` and `latest.svg`."""
    directory.mkdir(parents=True, exist_ok=True)
    spreads = figures.shape.spreads() if figures.shape else {}
    crowding = figures.shape.crowding() if figures.shape else {}
    whole = {"ratios": figures.ratios(), "spreads": spreads, "crowding": crowding, **msgspec.to_builtins(figures)}
    (directory / "latest.json").write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
    (directory / "latest.svg").write_text(picture(figures), encoding="utf-8")


def picture(figures: Figures) -> str:
    """Processor time an answer as bars, by kind of process."""
    medians = {
        name: {kind: median(turn.cpu_us[kind] for turn in turns) for kind in turns[0].cpu_us}
        for name, turns in figures.turns.items()
    }
    longest = max(sum(kinds.values()) for kinds in medians.values())
    height = 40 * len(medians) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}"',
        'font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="24" font-weight="bold">Processor time an answer, µs ({figures.at:%Y-%m-%d})</text>',
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
