"""`make bench`: what an accepted order costs and how fast it is stored, in one run on one machine."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from loadtest.bench import report
from loadtest.bench.comparison import BenchedServer, compare, turn
from loadtest.bench.environment import BenchEnvironment, arena
from loadtest.bench.machine import description
from loadtest.bench.order_writing import sustain_load, write
from loadtest.bench.peers import Peers
from loadtest.bench.scaling import half_load, measure_scaling
from loadtest.bench.wrk import LoadFailed

PARTS = ("contest", "memory", "writing", "shape")


def main() -> None:
    """Run it, print the tables, and write JSON and a picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5, help="of load in each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--orders", type=int, default=60_000, help="that the writer stores in each turn")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="orders that wait while the cost is measured")
    parser.add_argument("--long", type=float, default=60, help="seconds of load at 70%% of the peak, with a writer")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="a directory for latest.json and latest.svg; none: only print")
    sys.exit(0 if uvloop.run(run(parser.parse_args())) else 1)


async def run(options: argparse.Namespace) -> bool:
    """All parts, one after the other, on servers of their own; whether all went well. One that failed is left out."""
    shown = {name: value for name, value in vars(options).items() if name not in ("out", "parts")}
    figures = report.Figures(at=datetime.now(UTC).replace(microsecond=0), machine=description(), options=shown)
    parts = {"contest": _contest, "memory": _in_memory, "writing": _writing, "shape": _shape}
    for name in options.parts:
        try:
            await parts[name](options, figures)
        except LoadFailed as error:
            figures.left_out[name] = str(error)
    report.show(figures)
    if options.out:
        report.write(figures, options.out)
    return not figures.left_out.keys() & parts.keys()


async def _contest(options: argparse.Namespace, figures: report.Figures) -> None:
    _say("the same load for everybody")
    async with arena() as found, AsyncExitStack() as stack:
        peers = Peers(found, stack)
        figures.turns = await compare(found, await peers.start_all(), **_load(options))
        figures.left_out |= peers.left_out


async def _in_memory(options: argparse.Namespace, figures: report.Figures) -> None:
    _say("the same load, nothing on disk")
    async with arena(durability="memory") as found, AsyncExitStack() as stack:
        figures.in_memory = await compare(found, await Peers(found, stack).start_all(slow=False), **_load(options))


async def _writing(options: argparse.Namespace, figures: report.Figures) -> None:
    async with arena() as found, AsyncExitStack() as stack:
        floodgate = await Peers(found, stack).floodgate()
        _say("the writer and plain COPY")
        for _ in range(options.repeats):
            figures.writing.append(await write(found, options.orders))
        _say("the writer behind a gateway")
        figures.pace = await sustain_load(found, floodgate.url, options.connections, options.seconds * 4)
        pause_ms = options.connections / (0.7 * await _peak(found, floodgate, options)) * 1e3
        figures.long_pace = await sustain_load(found, floodgate.url, options.connections, options.long, pause_ms)


async def _shape(options: argparse.Namespace, figures: report.Figures) -> None:
    _say("other circumstances")
    async with arena() as found, AsyncExitStack() as stack:
        floodgate = await Peers(found, stack).floodgate()
        shape = await measure_scaling(
            found, floodgate, seconds=options.seconds, repeats=options.repeats, backlog=options.backlog
        )
        peak = await _peak(found, floodgate, options)
        await half_load(found, floodgate, peak, seconds=options.seconds, repeats=options.repeats, shape=shape)
        figures.shape = shape


def _load(options: argparse.Namespace) -> dict[str, int]:
    return {"connections": options.connections, "seconds": options.seconds, "repeats": options.repeats}


async def _peak(found: BenchEnvironment, floodgate: BenchedServer, options: argparse.Namespace) -> float:
    """Accepted orders a second under full load."""
    return (await turn(found, floodgate, options.connections, options.seconds)).per_s


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
