"""`make bench`: cost of orders and prices, speed of the writer, behaviour in a rush."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from commerce.kernel.errors import ProblemError
from commerce.kernel.standard_streams import open_standard_streams
from loadtest.bench import report
from loadtest.bench.comparison import BenchedServer, compare, measure
from loadtest.bench.environment import BenchEnvironment, open_environment
from loadtest.bench.machine import describe_machine
from loadtest.bench.order_writing import measure_writing, sustain_load
from loadtest.bench.peers import Peers
from loadtest.bench.pipeline import measure_pipeline
from loadtest.bench.pipeline_figures import PipelineFigures
from loadtest.bench.pricing import measure_pricing
from loadtest.bench.pricing_figures import PricingFigures
from loadtest.bench.rush import SIZES, STEPS, Rush
from loadtest.bench.rush_figures import RushFigures
from loadtest.bench.scaling import measure_half_load, measure_scaling
from loadtest.bench.search import measure_search
from loadtest.bench.search_figures import ProductSearchFigures
from loadtest.bench.stranger_figures import StrangerFigures
from loadtest.bench.strangers import NEW_CONNECTION_SHARE, measure_strangers
from loadtest.bench.support import measure_support
from loadtest.bench.support_figures import SupportLoadFigures
from loadtest.bench.tokens import TokenFigures, measure_tokens
from loadtest.bench.wrk import LoadFailed
from loadtest.set_up import SET_UP_STATUS, SetUpFault
from ops.local.subprocesses import ProcessFailed

PARTS = ("contest", "memory", "writing", "shape", "rush", "pipeline", "pricing", "support", "tokens", "crowd", "search")
_DEFAULT_PARTS = PARTS[:-1]
"""all but the one that needs a taxonomy"""
_OPTIONS_OF_OTHERS = ("out", "parts", "taxonomy", "products", "searches")
_SUSTAINED_SHARE = 0.7  # of the peak


def main() -> None:
    """Run the benchmarks, print the tables, and write JSON and a picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5, help="of load in each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--orders", type=int, default=60_000, help="stored by the writer in each measurement")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="orders that wait while the cost is measured")
    parser.add_argument("--long", type=float, default=60, help="seconds of load at 70%% of the peak, with a writer")
    parser.add_argument("--rush-connections", nargs="+", type=int, default=SIZES, help="impatient ones, in turn")
    parser.add_argument("--rush-seconds", type=float, default=3, help="of each measurement of a rush")
    parser.add_argument("--rush-repeats", type=int, default=3)
    parser.add_argument("--rush-steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--pipeline-orders", type=int, default=1_000, help="of each stage")
    parser.add_argument("--conversations", type=int, default=200_000, help="open ones, of the part support")
    parser.add_argument("--taxonomy", type=Path, metavar="DIR", help="of which the part search makes its products")
    parser.add_argument("--products", type=int, default=100_000, help="of the part search")
    parser.add_argument("--searches", type=float, default=200, help="per second, of the part search")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=_DEFAULT_PARTS)
    parser.add_argument("--out", type=Path, help="a directory for latest.json and latest.svg; none: only print")
    options = parser.parse_args()
    try:
        _check_set_up(options)
        is_complete = uvloop.run(run(options))
    except (SetUpFault, ProblemError) as error:
        parser.exit(SET_UP_STATUS, f"cannot run: {error}\n")
    sys.exit(0 if is_complete else 1)


def _check_set_up(options: argparse.Namespace) -> None:
    """Find out before the load, not ten minutes later, that it cannot run or its figures cannot be kept."""
    if "search" in options.parts and (options.taxonomy is None or not options.taxonomy.is_dir()):
        raise SetUpFault("the part search needs --taxonomy, a folder that `floodgate catalog taxonomy import` reads")
    if shutil.which("wrk") is None:
        raise SetUpFault("wrk is not installed; on Debian, `apt-get install wrk`")
    if options.out:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=options.out):
                pass
        except OSError as error:
            raise SetUpFault(
                f"figures cannot be written to {options.out}: {error.strerror}; give another --out"
            ) from None


async def run(options: argparse.Namespace) -> bool:
    """Run all parts one after the other, on servers of their own.

    A part that fails is left out of the figures. Returns False if any failed.
    """
    shown_options = {
        name: value
        for name, value in vars(options).items()
        if not (name.startswith(("rush", "pipeline", "conversations")) or name in _OPTIONS_OF_OTHERS)
    }
    figures = report.Figures(
        at=datetime.now(UTC).replace(microsecond=0), machine=describe_machine(), options=shown_options
    )
    parts = {
        "contest": _compare,
        "memory": _compare_in_memory,
        "writing": _measure_writing,
        "shape": _measure_scaling,
        "rush": _measure_rush,
        "pipeline": _measure_pipeline,
        "pricing": _measure_pricing,
        "support": _measure_support,
        "tokens": _measure_tokens,
        "crowd": _measure_strangers,
        "search": _measure_search,
    }
    for name in options.parts:
        try:
            await parts[name](options, figures)
        except (LoadFailed, ProcessFailed, TimeoutError) as error:
            figures.skipped[name] = str(error) or type(error).__name__
    report.show(figures)
    if options.out and figures.is_empty():
        print(f"nothing was measured: {options.out} is left as it was", file=sys.stderr)
    elif options.out:
        report.write(figures, options.out)
    return not figures.skipped.keys() & {*parts, *(f"rush: {step}" for step in STEPS)}


async def _compare(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("the same load for everybody")
    async with open_environment() as environment, AsyncExitStack() as stack:
        peers = Peers(environment, stack)
        figures.comparisons = await compare(environment, await peers.start_all(), **_load_options(options))
        figures.skipped |= peers.skipped


async def _compare_in_memory(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("the same load, nothing on disk")
    async with open_environment(durability="memory") as environment, AsyncExitStack() as stack:
        servers = await Peers(environment, stack).start_all(slow=False)
        figures.in_memory = await compare(environment, servers, **_load_options(options))


async def _measure_writing(options: argparse.Namespace, figures: report.Figures) -> None:
    async with open_environment() as environment, AsyncExitStack() as stack:
        floodgate = await Peers(environment, stack).start_floodgate()
        _print_progress("the writer and plain COPY")
        for _ in range(options.repeats):
            figures.writing.append(await measure_writing(environment, options.orders))
        _print_progress("the writer behind a gateway")
        figures.sustained_load = await sustain_load(
            environment, floodgate.url, options.connections, options.seconds * 4
        )
        peak = await _measure_peak(environment, floodgate, options)
        pause_ms = options.connections / (_SUSTAINED_SHARE * peak) * 1e3
        figures.long_sustained_load = await sustain_load(
            environment, floodgate.url, options.connections, options.long, pause_ms
        )


async def _measure_scaling(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("other numbers of connections, SKUs and waiting orders")
    async with open_environment() as environment, AsyncExitStack() as stack:
        floodgate = await Peers(environment, stack).start_floodgate()
        scaling = await measure_scaling(
            environment, floodgate, seconds=options.seconds, repeats=options.repeats, backlog=options.backlog
        )
        peak = await _measure_peak(environment, floodgate, options)
        await measure_half_load(
            environment, floodgate, peak, seconds=options.seconds, repeats=options.repeats, scaling=scaling
        )
        figures.scaling = scaling


async def _measure_rush(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("more customers than can be served")
    rush = Rush(options.rush_connections, options.rush_seconds, options.rush_repeats, options.rush_steps)
    rush.figures = RushFigures(
        at=figures.at,
        machine=figures.machine,
        options={"seconds": options.rush_seconds, "repeats": options.rush_repeats},
    )
    await rush.run()
    figures.rush = rush.figures
    figures.skipped |= rush.skipped


async def _measure_pipeline(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("whole orders: paid, shipped, delivered")
    pipeline = PipelineFigures(at=figures.at, machine=figures.machine, options={"orders": options.pipeline_orders})
    await measure_pipeline(pipeline, options.pipeline_orders)
    figures.pipeline = pipeline


async def _measure_pricing(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("prices with promotions and freight")
    load = _load_options(options)
    pricing = PricingFigures(at=figures.at, machine=figures.machine, options={**load})
    await measure_pricing(pricing, **load)
    figures.pricing = pricing


async def _measure_support(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("the queue of support, search and views of orders")
    support = SupportLoadFigures(
        at=figures.at, machine=figures.machine, options={"conversations": options.conversations}
    )
    await measure_support(support, options.conversations)
    figures.support = support


async def _measure_tokens(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("first checks of tokens")
    tokens = TokenFigures(at=figures.at, machine=figures.machine, options={"repeats": options.repeats})
    measure_tokens(tokens, options.repeats)
    figures.tokens = tokens


async def _measure_strangers(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("strangers, new connections, two sales and a writer")
    load = _load_options(options)
    shown = {**load, "new_connection_share": NEW_CONNECTION_SHARE}
    strangers = StrangerFigures(at=figures.at, machine=figures.machine, options=shown)
    await measure_strangers(strangers, **load)
    figures.crowd = strangers


async def _measure_search(options: argparse.Namespace, figures: report.Figures) -> None:
    _print_progress("searches of products, alone and beside orders")
    shown = {"products": options.products, "searches_per_s": options.searches, "seconds": options.seconds}
    shown["repeats"] = options.repeats
    search = ProductSearchFigures(at=figures.at, machine=figures.machine, options=shown)
    await measure_search(search, options.taxonomy, options.products, options.searches, options.seconds, options.repeats)
    figures.search = search


def _load_options(options: argparse.Namespace) -> dict[str, int]:
    return {"connections": options.connections, "seconds": options.seconds, "repeats": options.repeats}


async def _measure_peak(environment: BenchEnvironment, floodgate: BenchedServer, options: argparse.Namespace) -> float:
    """Return the accepted orders per second under full load."""
    return (await measure(environment, floodgate, options.connections, options.seconds)).per_s


def _print_progress(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    open_standard_streams()
    main()
