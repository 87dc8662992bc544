"""Comparison of servers by processor time and speed, one after the other under the same load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec

from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.machine import CpuMeter
from loadtest.bench.wrk import LoadFailed, run_wrk

_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class BenchedServer:
    """A server that is measured.

    `users` names the file of header lines that are sent with orders; None: it gets a plain GET. `sells` is False if it
    does not take the orders. `processes` are its pids by kind; Redis counts for all that take orders.
    """

    name: str
    url: str
    processes: Mapping[str, Sequence[int]]
    users: str | None = None
    sells: bool = True


class Measurement(msgspec.Struct, frozen=True):
    """One measurement of one server; processor time in microseconds per answer, by kind of process."""

    answers: int
    per_s: float
    cpu_us: dict[str, float]
    p50_ms: float
    p99_ms: float

    @property
    def cpu(self) -> float:
        return sum(self.cpu_us.values())


async def measure(
    environment: BenchEnvironment,
    server: BenchedServer,
    connections: int,
    seconds: float,
    *,
    pause_ms: float = 0,
    sweep: bool = True,
) -> Measurement:
    """Load a server once. Raises `LoadFailed` unless every request succeeded.

    `pause_ms` is the mean pause before each request; `sweep` deletes the orders of earlier measurements first.
    """
    takes_orders = server.users is not None and server.sells
    arguments = (
        environment.load_arguments(environment.home / server.users, pause_ms) if server.users is not None else ()
    )
    if takes_orders and sweep:
        await environment.sweep()
    sold_before = await environment.count_sold()
    meter = CpuMeter(server.processes)
    load = await run_wrk(server.url, connections, seconds, *arguments)
    used = meter.read_used()
    answers = await environment.count_sold() - sold_before if takes_orders else load.requests
    if load.refused or load.failed or answers < load.requests:
        raise LoadFailed(
            f"{server.name}: of {load.requests} requests {load.refused} were refused and {load.failed} failed; "
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
    environment: BenchEnvironment, servers: Sequence[BenchedServer], *, connections: int, seconds: float, repeats: int
) -> dict[str, list[Measurement]]:
    """Measure all servers in turn, several times, so that disturbances of the machine affect all of them.

    Returns the measurements by server.
    """
    measurements: dict[str, list[Measurement]] = {server.name: [] for server in servers}
    for server in servers:
        await measure(environment, server, connections, _WARM_UP_S)
    for _ in range(repeats):
        for server in servers:
            measurements[server.name].append(await measure(environment, server, connections, seconds))
    return measurements


def cpu_ratio(measurements: dict[str, list[Measurement]], server: str, other: str) -> float:
    """Return processor time of a server by that of another, the median over neighbouring measurements."""
    return median(a.cpu / b.cpu for a, b in zip(measurements[server], measurements[other], strict=True))


def rate_ratio(measurements: dict[str, list[Measurement]], server: str, other: str) -> float:
    """Return answers per second of a server by those of another, as `cpu_ratio` does."""
    return median(a.per_s / b.per_s for a, b in zip(measurements[server], measurements[other], strict=True))
