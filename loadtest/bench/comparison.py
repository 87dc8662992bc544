"""Who answers an order, or a hello, for how much processor time: all under the same load, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec

from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.machine import Cpu
from loadtest.bench.wrk import LoadFailed, wrk

_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class BenchedServer:
    """A server to be measured. `users` are the header lines to send with orders, None for one that gets a plain GET;
    `sells` says whether it takes the orders that it gets.

    `processes` are its processes by kind; Redis's belongs to all that take orders.
    """

    name: str
    url: str
    processes: Mapping[str, Sequence[int]]
    users: str | None = None
    sells: bool = True


class Measurement(msgspec.Struct, frozen=True):
    """One run of one contestant; processor time in microseconds an answer, by kind of process."""

    answers: int
    per_s: float
    cpu_us: dict[str, float]
    p50_ms: float
    p99_ms: float

    @property
    def cpu(self) -> float:
        return sum(self.cpu_us.values())


async def turn(
    arena: BenchEnvironment,
    contestant: BenchedServer,
    connections: int,
    seconds: float,
    *,
    pause_ms: float = 0,
    sweep: bool = True,
) -> Measurement:
    """Load a contestant once. Raises `LoadFailed` if not every answer was a yes."""
    orders = contestant.users is not None and contestant.sells
    arguments = arena.load(arena.home / contestant.users, pause_ms) if contestant.users is not None else ()
    if orders and sweep:
        await arena.sweep()
    sold = await arena.sold()
    cpu = Cpu(contestant.processes)
    load = await wrk(contestant.url, connections, seconds, *arguments)
    used = cpu.used()
    answers = await arena.sold() - sold if orders else load.requests
    if load.refused or load.failed or answers < load.requests:
        raise LoadFailed(
            f"{contestant.name}: of {load.requests} requests {load.refused} were refused and {load.failed} failed; "
            f"{answers} were accepted"
        )
    return Measurement(
        answers,
        answers / load.seconds,
        {kind: seconds / answers * 1e6 for kind, seconds in used.items()},
        load.p50 * 1e3,
        load.p99 * 1e3,
    )


async def compare(
    arena: BenchEnvironment, contestants: Sequence[BenchedServer], *, connections: int, seconds: float, repeats: int
) -> dict[str, list[Measurement]]:
    """All contestants in turn, several times over, so that what disturbs the machine disturbs all of them."""
    turns: dict[str, list[Measurement]] = {one.name: [] for one in contestants}
    for one in contestants:
        await turn(arena, one, connections, _WARM_UP_S)
    for _ in range(repeats):
        for one in contestants:
            turns[one.name].append(await turn(arena, one, connections, seconds))
    return turns


def cpu_ratio(turns: dict[str, list[Measurement]], one: str, other: str) -> float:
    """Processor time of one by that of the other, the median over pairs of neighbouring turns."""
    return median(a.cpu / b.cpu for a, b in zip(turns[one], turns[other], strict=True))


def rate_ratio(turns: dict[str, list[Measurement]], one: str, other: str) -> float:
    """Answers a second of one by those of the other, the median over pairs of neighbouring turns."""
    return median(a.per_s / b.per_s for a, b in zip(turns[one], turns[other], strict=True))
