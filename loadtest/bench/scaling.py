"""Whether an order costs the same whatever is around it, and how long a shopper waits when the shop is half busy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median

import msgspec

from loadtest.bench.comparison import BenchedServer, Measurement, turn
from loadtest.bench.environment import BenchEnvironment, arena
from loadtest.bench.idle_connections import open_idle_connections
from loadtest.bench.order_writing import queue
from loadtest.bench.peers import Peers

_CONNECTIONS = (64, 256, 2_000)
_MANY_SKUS = 100_000
_ROUNDS = 3  # of the waiting times, for each repeat of all else


class Scaling(msgspec.Struct):
    """Processor time an order in microseconds; waiting times in milliseconds."""

    cpu_by_connections: dict[int, float] = {}
    cpu_by_skus: dict[int, float] = {}
    cpu_by_backlog: dict[int, float] = {}
    redis_bytes_per_waiting_order: float = 0
    half_load: list[Measurement] = []
    half_load_with_slow_senders: list[Measurement] = []
    half_load_with_idle_connections: list[Measurement] = []

    def spreads(self) -> dict[str, float]:
        """The highest cost by the lowest, for each of the circumstances."""
        found = {"connections": self.cpu_by_connections, "skus": self.cpu_by_skus, "backlog": self.cpu_by_backlog}
        return {name: round(max(costs.values()) / min(costs.values()), 3) for name, costs in found.items() if costs}

    def crowding(self) -> dict[str, float]:
        """The shoppers' p99 among a crowd by their p99 alone, at half of the peak: medians over neighbouring turns."""
        crowds = {"slow_senders": self.half_load_with_slow_senders, "idle": self.half_load_with_idle_connections}
        return {
            name: round(
                median(among.p99_ms / alone.p99_ms for among, alone in zip(turns, self.half_load, strict=True)), 3
            )
            for name, turns in crowds.items()
            if turns
        }


async def measure_scaling(
    found: BenchEnvironment, floodgate: BenchedServer, *, seconds: float, repeats: int, backlog: int
) -> Scaling:
    """Measure one circumstance after the other against the plain case."""
    shape = Scaling()

    async def by_connections(count: int) -> float:
        return (await turn(found, floodgate, count, seconds)).cpu

    shape.cpu_by_connections = await _alternate(_CONNECTIONS, by_connections, repeats)
    async with arena(skus=_MANY_SKUS) as many, AsyncExitStack() as stack:
        other = await Peers(many, stack).floodgate()

        async def by_skus(count: int) -> float:
            where, who = (found, floodgate) if count == 1 else (many, other)
            return (await turn(where, who, 256, seconds)).cpu

        shape.cpu_by_skus = await _alternate((1, _MANY_SKUS), by_skus, repeats)
    await _backlog(found, floodgate, shape, seconds, repeats, backlog)
    return shape


async def _alternate(
    cases: Sequence[int], measure: Callable[[int], Awaitable[float]], repeats: int
) -> dict[int, float]:
    """The median cost of each case, taking turns."""
    costs: dict[int, list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for case in cases:
            costs[case].append(await measure(case))
    return {case: median(found) for case, found in costs.items()}


async def _backlog(
    found: BenchEnvironment, floodgate: BenchedServer, shape: Scaling, seconds: float, repeats: int, backlog: int
) -> None:
    """With nothing waiting, then with a stream full of orders that no writer takes."""
    empty = [(await turn(found, floodgate, 256, seconds)).cpu for _ in range(repeats)]
    await found.sweep()
    before = await _memory(found)
    await queue(found, backlog)
    shape.redis_bytes_per_waiting_order = (await _memory(found) - before) / backlog
    full = [(await turn(found, floodgate, 256, seconds, sweep=False)).cpu for _ in range(repeats)]
    shape.cpu_by_backlog = {0: median(empty), backlog: median(full)}
    await found.sweep()


async def _memory(found: BenchEnvironment) -> int:
    return int((await found.shop.redis.info("memory"))["used_memory"])


async def half_load(
    found: BenchEnvironment,
    floodgate: BenchedServer,
    peak_per_s: float,
    *,
    seconds: float,
    repeats: int,
    shape: Scaling,
) -> None:
    """Waiting times at half of the peak: alone, with slow senders, and with idle connections, taking turns.

    Many short turns rather than few long ones: a p99 is moved by whatever else the machine does, and two turns of the
    very same case differ by half as a rule. Each turn begins with an append-only file just rewritten, or one turn would
    have Redis's rewrite within it and the next would not.
    """
    connections = 256
    pause_ms = connections / (peak_per_s / 2) * 1e3

    async def waiting() -> Measurement:
        await _rewrite(found)
        return await turn(found, floodgate, connections, seconds / 2, pause_ms=pause_ms)

    for _ in range(_ROUNDS * repeats):
        shape.half_load.append(await waiting())
        async with open_idle_connections(floodgate.url, sending=True):
            shape.half_load_with_slow_senders.append(await waiting())
        async with open_idle_connections(floodgate.url, sending=False):
            shape.half_load_with_idle_connections.append(await waiting())


async def _rewrite(found: BenchEnvironment) -> None:
    """Have Redis rewrite its append-only file now, if it keeps one."""
    await found.sweep()
    redis = found.shop.redis
    if not (await redis.info("persistence"))["aof_enabled"]:
        return
    await redis.bgrewriteaof()
    while True:
        state = await redis.info("persistence")
        if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
            return
        await asyncio.sleep(0.05)
