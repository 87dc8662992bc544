"""Accepted orders and waiting times under impatient crowds, and the calm after them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from time import monotonic

from loadtest.bench.comparison import BenchedServer
from loadtest.bench.crowd import Crowd, count_possible_connections, list_addresses, open_crowd
from loadtest.bench.crowd_process import CrowdSample
from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.machine import CpuMeter
from loadtest.bench.rush_figures import CrowdFigures, PatientFigures
from loadtest.bench.wrk import LoadFailed

PATIENT_CUSTOMERS, PATIENT_PAUSE_MS = 200, 100.0
_RAMP_S, _QUIET_S, _AFTER_S = 1.0, 1.0, 2.0
_SLICE_S = 0.1
_CALM_MS = 10.0  # nobody notices less
_IDLE_INTERVAL_S = 0.05
_FIRST_PATIENT_USER = 5_000

Answers = Sequence[tuple[float, float, bool]]


async def measure_crowd(
    environment: BenchEnvironment,
    server: BenchedServer,
    connections: int,
    seconds: float,
    *,
    has_patient: bool = False,
) -> CrowdFigures:
    """Let an impatient crowd order for so many seconds, beside patient customers or without any."""
    users = environment.home / (server.users or "tokens")
    quiet = after = patient_sample = None
    async with AsyncExitStack() as stack:
        patient: Crowd | None = None
        if has_patient:
            patient = await stack.enter_async_context(open_patient_crowd(environment, server.url, users=users))
            await patient.wait_until_connected()
            await asyncio.sleep(_RAMP_S)
            await patient.take_sample()
            await asyncio.sleep(_QUIET_S)
            quiet = await patient.take_sample()
        crowd = await stack.enter_async_context(
            open_crowd(environment, server.url, connections, users=users, sources=list_addresses(1, 10))
        )
        await crowd.wait_until_connected()
        await asyncio.sleep(_RAMP_S)
        await crowd.take_sample()
        if patient:
            await patient.take_sample()
        sold_before, started, meter = await environment.count_sold(), monotonic(), CpuMeter(server.processes)
        await asyncio.sleep(seconds)
        sold = await environment.count_sold() - sold_before
        elapsed_s, used = monotonic() - started, meter.read_used()
        sample = await crowd.take_sample()
        if patient:
            patient_sample = await patient.take_sample()
        await crowd.leave()
        left_at = monotonic()
        if patient:
            await asyncio.sleep(_AFTER_S)
            after = await patient.take_sample()
    await wait_until_calm(environment)
    return CrowdFigures(
        sample.connected,
        sold / elapsed_s,
        sample.refused / max(1, sample.refused + sample.accepted),
        sample.counts,
        sample.p99_ms,
        {kind: cpu_s / elapsed_s for kind, cpu_s in used.items()},
        describe_patient(patient_sample) if patient_sample else None,
        find_calm_ms(quiet.answers, after.answers, left_at) if quiet and after else None,
    )


def open_patient_crowd(
    environment: BenchEnvironment, url: str, *, users: Path | None = None
) -> AbstractAsyncContextManager[Crowd]:
    """Run the patient customers, each with a user of its own and a pause before each order."""
    return open_crowd(
        environment,
        url,
        PATIENT_CUSTOMERS,
        is_patient=True,
        pause_ms=PATIENT_PAUSE_MS,
        sources=list_addresses(101, 20),
        first_user=_FIRST_PATIENT_USER,
        keeps_answers=True,
        users=users,
    )


def describe_patient(sample: CrowdSample) -> PatientFigures:
    """Return the figures of patient customers."""
    return PatientFigures(sample.accepted, sample.refused, sample.p50_ms, sample.p99_ms, sample.all_attempts_p99_ms)


def find_calm_ms(quiet: Answers, after: Answers, left_at: float) -> float:
    """Return the milliseconds from `left_at` until customers were served as in the quiet.

    The time after it is cut into tenths of a second. One is not calm if any answer in it is a refusal, or nine in ten
    are not within 10 ms or twice the p99 of the quiet. The result is the end of the last one that is not calm, 0 if all
    are.
    """
    if not quiet:
        raise LoadFailed("patient customers were not served even before the crowd came")
    limit_ms = max(_CALM_MS, 2 * find_percentile([elapsed_ms for _, elapsed_ms, _ in quiet], 0.99))
    slices: dict[int, list[tuple[float, bool]]] = {}
    for at, elapsed_ms, is_success in after:
        if at >= left_at:
            slices.setdefault(int((at - left_at) / _SLICE_S), []).append((elapsed_ms, is_success))
    restless = [
        number
        for number, answers in slices.items()
        if not all(is_success for _, is_success in answers)
        or find_percentile([elapsed_ms for elapsed_ms, _ in answers], 0.9) > limit_ms
    ]
    if not slices:
        return _AFTER_S * 1e3
    return (max(restless) + 1) * _SLICE_S * 1e3 if restless else 0.0


def find_percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of unsorted values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def wait_until_calm(environment: BenchEnvironment) -> None:
    """Wait until no more orders arrive from a crowd that has left."""
    sold = -1
    while sold != (sold := await environment.count_sold()):  # noqa: ASYNC110  # Redis sends no event
        await asyncio.sleep(_IDLE_INTERVAL_S)


async def measure_sizes(
    environment: BenchEnvironment,
    server: BenchedServer,
    sizes: Sequence[int],
    seconds: float,
    repeats: int,
    *,
    prepare: Callable[[], Awaitable[None]],
    show: Callable[[str], None],
) -> dict[int, list[CrowdFigures]]:
    """Measure crowds of all sizes in turn, several times, each after `prepare`.

    Patient customers order beside each of them. A size that a process cannot hold is cut to what it can.
    """
    figures: dict[int, list[CrowdFigures]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            await prepare()
            connections = min(size, count_possible_connections())
            measured = await measure_crowd(environment, server, connections, seconds, has_patient=True)
            figures[size].append(measured)
            show(f"{server.name}, {size:,} impatient: {measured.accepted_per_s:,.0f} accepted/s")
    return figures
