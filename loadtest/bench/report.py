"""What a benchmark found: as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench.contest import Turn, cpu_ratio, rate_ratio
from loadtest.bench.peers import FASTAPI, FLOODGATE, HELLO, NGINX
from loadtest.bench.writing import Pace, Writing

_BARS = {"server": "#2a6f97", "redis": "#e07a5f"}


class Figures(msgspec.Struct):
    """Everything that was measured in one run."""

    at: datetime
    machine: dict[str, str | int]
    options: dict[str, float]
    turns: dict[str, list[Turn]] = {}
    writing: list[Writing] = []
    pace: Pace | None = None
    left_out: dict[str, str] = {}

    def ratios(self) -> dict[str, float]:
        """What thresholds are set on; each is a ratio inside this run."""
        found = {
            name: ratio(self.turns, FLOODGATE, other)
            for name, other, ratio in (
                ("cpu_vs_aiohttp_hello", HELLO, cpu_ratio),
                ("cpu_vs_nginx_lua", NGINX, cpu_ratio),
                ("orders_vs_nginx_lua", NGINX, rate_ratio),
                ("orders_vs_fastapi", FASTAPI, rate_ratio),
            )
            if other in self.turns
        }
        if self.writing:
            found["writer_vs_copy"] = median(one.writer_per_s / one.copy_per_s for one in self.writing)
        return {name: round(ratio, 3) for name, ratio in found.items()}


def show(figures: Figures) -> None:
    """Print it."""
    console = Console(width=120)
    table = Table("server", "answers/s", "CPU µs an answer", "of which", "p50 ms", "p99 ms")
    for name, turns in figures.turns.items():
        kinds = ", ".join(f"{kind} {median(turn.cpu_us[kind] for turn in turns):.1f}" for kind in turns[0].cpu_us)
        table.add_row(
            name,
            spread([turn.per_s for turn in turns], 0),
            spread([turn.cpu for turn in turns], 1),
            kinds,
            spread([turn.p50_ms for turn in turns], 1),
            spread([turn.p99_ms for turn in turns], 1),
        )
    console.print(table)
    if figures.writing:
        console.print(
            f"writer: {spread([one.writer_per_s for one in figures.writing], 0)} orders/s, "
            f"plain COPY of the same rows: {spread([one.copy_per_s for one in figures.writing], 0)}"
        )
    if pace := figures.pace:
        console.print(
            f"accept and persist together: {pace.accepted_per_s:.0f} accepted/s, {pace.stored_per_s:.0f} stored/s; "
            f"{pace.backlog} were waiting when the load ended, all stored {pace.drained_s:.1f} s later"
        )
    for name, why in figures.left_out.items():
        console.print(f"left out: {name}: {why}")
    console.print(figures.ratios())


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and from where to where the values go."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def write(figures: Figures, directory: Path) -> None:
    """`latest.json` and `latest.svg`."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {"ratios": figures.ratios(), **msgspec.to_builtins(figures)}
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
