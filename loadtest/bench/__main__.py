"""`make bench`: what an accepted order costs and how fast it is stored, in one run on one machine."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from loadtest.bench import report
from loadtest.bench.arena import Arena, arena
from loadtest.bench.contest import contest
from loadtest.bench.machine import description
from loadtest.bench.peers import FLOODGATE, Peers
from loadtest.bench.writing import keep_pace, write
from loadtest.bench.wrk import LoadFailed


def main() -> None:
    """Run it, print the table, and write JSON and a picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5, help="of load in each turn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--orders", type=int, default=60_000, help="that the writer stores in each turn")
    parser.add_argument("--out", type=Path, help="a directory for latest.json and latest.svg; none: only print")
    try:
        uvloop.run(run(parser.parse_args()))
    except LoadFailed as error:
        sys.exit(f"bench: {error}")


async def run(options: argparse.Namespace) -> None:
    """All contests, one after the other; each has servers that are its own."""
    figures = report.Figures(
        at=datetime.now(UTC).replace(microsecond=0), machine=description(), options=_shown(options)
    )
    async with arena() as found, AsyncExitStack() as stack:
        peers = Peers(found, stack)
        contestants = await peers.start_all()
        figures.left_out = peers.left_out
        print(f"{len(contestants)} servers under the same load, {options.repeats} turns each", flush=True)
        figures.turns = await contest(
            found,
            contestants,
            connections=options.connections,
            seconds=options.seconds,
            repeats=options.repeats,
        )
        url = next(one.url for one in contestants if one.name == FLOODGATE)
        await _writing(found, url, options, figures)
    report.show(figures)
    if options.out:
        report.write(figures, options.out)


async def _writing(found: Arena, url: str, options: argparse.Namespace, figures: report.Figures) -> None:
    print("the writer and plain COPY", flush=True)
    for _ in range(options.repeats):
        figures.writing.append(await write(found, options.orders))
    print("the writer behind a gateway under full load", flush=True)
    figures.pace = await keep_pace(found, url, options.connections, options.seconds * 4)


def _shown(options: argparse.Namespace) -> dict[str, float]:
    return {name: value for name, value in vars(options).items() if name != "out"}


if __name__ == "__main__":
    main()
