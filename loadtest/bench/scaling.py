"""Cost of an order by connections, SKUs and backlog, and waiting times at half of the peak."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median

import msgspec

from loadtest.bench.comparison import BenchedServer, Measurement, measure
from loadtest.bench.environment import BenchEnvironment, open_environment
from loadtest.bench.idle_connections import open_idle_connections
from loadtest.bench.order_writing import queue_orders
from loadtest.bench.peers import Peers

_CONNECTIONS = (64, 256, 2_000)
_MANY_SKUS = 100_000
_CONNECTION_COUNT = 256
_HALF_LOAD_ROUNDS = 3  # measurements of waiting times per repeat of the others
_POLL_INTERVAL_S = 0.05


class Scaling(msgspec.Struct):
    """Results: processor time per order in microseconds, waiting times in milliseconds."""

    cpu_by_connections: dict[int, float] = {}
    cpu_by_skus: dict[int, float] = {}
    cpu_by_backlog: dict[int, float] = {}
    redis_bytes_per_waiting_order: float = 0
    half_load: list[Measurement] = []
    half_load_with_slow_senders: list[Measurement] = []
    half_load_with_idle_connections: list[Measurement] = []

    def spreads(self) -> dict[str, float]:
        """Return the highest cost divided by the lowest, for connections, SKUs and backlog."""
        costs_by_name = {
            "connections": self.cpu_by_connections,
            "skus": self.cpu_by_skus,
            "backlog": self.cpu_by_backlog,
        }
        return {
            name: round(max(costs.values()) / min(costs.values()), 3) for name, costs in costs_by_name.items() if costs
        }

    def compute_crowding(self) -> dict[str, float]:
        """Return the p99 beside other connections divided by the p99 alone, at half of the peak.

        Medians over neighbouring measurements.
        """
        beside = {"slow_senders": self.half_load_with_slow_senders, "idle": self.half_load_with_idle_connections}
        return {
            name: round(
                median(
                    loaded.p99_ms / alone.p99_ms for loaded, alone in zip(measurements, self.half_load, strict=True)
                ),
                3,
            )
            for name, measurements in beside.items()
            if measurements
        }


async def measure_scaling(
    environment: BenchEnvironment, floodgate: BenchedServer, *, seconds: float, repeats: int, backlog: int
) -> Scaling:
    """Measure the cost of an order by connections, by SKUs and by backlog."""
    scaling = Scaling()

    async def measure_connections(count: int) -> float:
        return (await measure(environment, floodgate, count, seconds)).cpu

    scaling.cpu_by_connections = await _alternate(_CONNECTIONS, measure_connections, repeats)
    async with open_environment(skus=_MANY_SKUS) as many_skus, AsyncExitStack() as stack:
        other_floodgate = await Peers(many_skus, stack).start_floodgate()

        async def measure_skus(count: int) -> float:
            case = (environment, floodgate) if count == 1 else (many_skus, other_floodgate)
            return (await measure(*case, _CONNECTION_COUNT, seconds)).cpu

        scaling.cpu_by_skus = await _alternate((1, _MANY_SKUS), measure_skus, repeats)
    await _measure_backlog(environment, floodgate, scaling, seconds, repeats, backlog)
    return scaling


async def _alternate(
    cases: Sequence[int], measure_case: Callable[[int], Awaitable[float]], repeats: int
) -> dict[int, float]:
    """Measure the cases in turn, and return the median cost of each."""
    costs_by_case: dict[int, list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            costs_by_case[case].append(await measure_case(case))
    return {case: median(costs) for case, costs in costs_by_case.items()}


async def _measure_backlog(
    environment: BenchEnvironment,
    floodgate: BenchedServer,
    scaling: Scaling,
    seconds: float,
    repeats: int,
    backlog: int,
) -> None:
    """Measure the cost without waiting orders, and with a stream full of orders that no writer reads."""
    empty = [(await measure(environment, floodgate, _CONNECTION_COUNT, seconds)).cpu for _ in range(repeats)]
    await environment.sweep()
    before = await _read_used_memory(environment)
    await queue_orders(environment, backlog)
    scaling.redis_bytes_per_waiting_order = (await _read_used_memory(environment) - before) / backlog
    full = [
        (await measure(environment, floodgate, _CONNECTION_COUNT, seconds, sweep=False)).cpu for _ in range(repeats)
    ]
    scaling.cpu_by_backlog = {0: median(empty), backlog: median(full)}
    await environment.sweep()


async def _read_used_memory(environment: BenchEnvironment) -> int:
    return int((await environment.shop.redis.info("memory"))["used_memory"])


async def measure_half_load(
    environment: BenchEnvironment,
    floodgate: BenchedServer,
    peak_per_s: float,
    *,
    seconds: float,
    repeats: int,
    scaling: Scaling,
) -> None:
    """Measure waiting times at half of the peak: alone, with slow senders, with idle connections.

    Many short measurements instead of few long ones: a p99 depends on everything else that the machine does, and two
    measurements of the same case usually differ by half. Each one begins with a freshly rewritten append-only file;
    otherwise some would contain a rewrite by Redis and others not.
    """
    pause_ms = _CONNECTION_COUNT / (peak_per_s / 2) * 1e3

    async def measure_once() -> Measurement:
        await rewrite_append_only_file(environment)
        return await measure(environment, floodgate, _CONNECTION_COUNT, seconds / 2, pause_ms=pause_ms)

    for _ in range(_HALF_LOAD_ROUNDS * repeats):
        scaling.half_load.append(await measure_once())
        async with open_idle_connections(floodgate.url, sending=True):
            scaling.half_load_with_slow_senders.append(await measure_once())
        async with open_idle_connections(floodgate.url, sending=False):
            scaling.half_load_with_idle_connections.append(await measure_once())


async def rewrite_append_only_file(environment: BenchEnvironment) -> None:
    """Let Redis rewrite its append-only file now, if it has one."""
    await environment.sweep()
    redis = environment.shop.redis
    if not (await redis.info("persistence"))["aof_enabled"]:
        return
    await redis.bgrewriteaof()
    while True:
        state = await redis.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        await asyncio.sleep(_POLL_INTERVAL_S)
