"""Capacity model: from the measured cost of an order to the resources and bottlenecks of a peak."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median

import msgspec

PEAKS = (10_000, 100_000, 583_000)
"""orders per second; the last is the peak that Alibaba published for its festival of November 2020"""


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured cost of one order: processor time in microseconds, sizes in bytes."""

    gateway_us: float
    redis_us: float
    writer_us: float
    postgres_us: float
    wal_bytes: float
    waiting_bytes: float
    aof_bytes: float = 700
    """in Redis's append-only file; assumed where the part `crowd` was not measured"""
    calls_per_batch: float = 1
    """writes to Redis per batch of orders: its reservation, and the writer's reads and acknowledgements"""
    are_strangers: bool = False
    """True if the costs are those of the part `crowd`.

    Otherwise all users are known, and Redis's time is without what the writer takes of it."""


@dataclass(frozen=True)
class Assumptions:
    """Values that are not measured here. Every command and document that shows a result shows these."""

    cores: int = 16
    """of one machine"""
    busy: float = 0.6
    """planned share of a core; the remainder is a reserve"""
    batch_orders: int = 128
    """orders in one Redis call at the peak: half of the maximum"""
    syncs_per_s: int = 5_000
    """fsyncs per second of one disk: a data-centre NVMe drive with a capacitor"""
    disk_bytes_per_s: float = 500e6
    """planned sequential writes of that disk"""
    wire_bits: float = 8 * 1_500
    """per order on the network: request, response, and the calls to Redis"""
    postgres_orders_per_s: int = 60_000
    """of one primary: index pages, checkpoints and its single log limit it before its cores do"""


@dataclass(frozen=True, slots=True)
class Need:
    """Amount of one resource at a peak. `bottleneck` is why one of it is not enough, or empty."""

    part: str
    amount: float
    unit: str
    bottleneck: str


class NoFigures(Exception):
    """The benchmark's file is missing or lacks a part. The message says how to create it."""


class _Measurement(msgspec.Struct):
    cpu_us: dict[str, float]


class _Writing(msgspec.Struct):
    cpu_us: dict[str, float]
    wal_bytes: float


class _Scaling(msgspec.Struct):
    redis_bytes_per_waiting_order: float


class _StrangerTurn(msgspec.Struct):
    cpu_us: dict[str, float]
    calls_per_batch: float
    aof_bytes: float


class _Strangers(msgspec.Struct):
    turns: dict[str, list[_StrangerTurn]]


class _BenchmarkFile(msgspec.Struct, rename={"comparisons": "turns", "scaling": "shape"}):
    comparisons: dict[str, list[_Measurement]]
    writing: list[_Writing]
    scaling: _Scaling
    crowd: _Strangers | None = None


def read_costs(file: Path) -> Costs:
    """Read the costs from a benchmark's JSON. Raises `NoFigures` if it is missing or incomplete."""
    try:
        figures = msgspec.json.decode(file.read_bytes(), type=_BenchmarkFile)
        measurements, writing = figures.comparisons["floodgate"], figures.writing
        costs = Costs(
            gateway_us=median(measurement.cpu_us["server"] for measurement in measurements),
            redis_us=median(measurement.cpu_us["redis"] for measurement in measurements),
            writer_us=median(measurement.cpu_us["writer"] for measurement in writing),
            postgres_us=median(measurement.cpu_us["postgres"] for measurement in writing),
            wal_bytes=median(measurement.wal_bytes for measurement in writing),
            waiting_bytes=figures.scaling.redis_bytes_per_waiting_order,
        )
        return costs if figures.crowd is None else _replace_by_strangers(costs, figures.crowd.turns["stored"])
    except (OSError, msgspec.MsgspecError, LookupError, ValueError) as error:
        raise NoFigures(f"cannot read the figures of a whole run from {file}: {error}; run `make bench`") from None


def _replace_by_strangers(costs: Costs, turns: list[_StrangerTurn]) -> Costs:
    return replace(
        costs,
        gateway_us=median(turn.cpu_us["gateway"] for turn in turns),
        redis_us=median(turn.cpu_us["redis"] for turn in turns),
        writer_us=median(turn.cpu_us["writer"] for turn in turns),
        postgres_us=median(turn.cpu_us["postgres"] for turn in turns),
        aof_bytes=median(turn.aof_bytes for turn in turns),
        calls_per_batch=median(turn.calls_per_batch for turn in turns),
        are_strangers=True,
    )


def compute_needs(costs: Costs, orders_per_s: int, assumptions: Assumptions) -> list[Need]:
    """Return the resources that a rate of orders needs, part by part."""

    def cores(us: float) -> float:
        return orders_per_s * us / 1e6 / assumptions.busy

    def limited(part: str, amount: float, unit: str, is_exceeded: bool, bottleneck: str) -> Need:
        return Need(part, amount, unit, bottleneck if is_exceeded else "")

    shards = cores(costs.redis_us)  # a shard is one thread
    syncs = orders_per_s / assumptions.batch_orders * costs.calls_per_batch
    primaries = orders_per_s / assumptions.postgres_orders_per_s
    wal, aof, disk = orders_per_s * costs.wal_bytes, orders_per_s * costs.aof_bytes, assumptions.disk_bytes_per_s
    return [
        Need("gateway", cores(costs.gateway_us), "cores", ""),
        limited("Redis", shards, "shards", shards > 1, "one sale lives in one shard, so a sale has to be split"),
        limited("Redis disk", syncs, "syncs/s", syncs > assumptions.syncs_per_s, "one disk cannot sync this often"),
        limited("Redis disk", aof / 1e6, "MB/s", aof > disk, "one disk cannot write this much"),
        Need("order writer", cores(costs.writer_us), "cores", ""),
        Need("Postgres", cores(costs.postgres_us), "cores", ""),
        limited("Postgres", primaries, "primaries", primaries > 1, "one primary cannot store this many"),
        limited("Postgres log", wal / 1e6, "MB/s", wal > disk, "one disk cannot write this much"),
        Need("network", orders_per_s * assumptions.wire_bits / 1e9, "Gbit/s", ""),
        Need("a minute's backlog in Redis", orders_per_s * 60 * costs.waiting_bytes / 1e9, "GB", ""),
    ]


def count_machines(needs: list[Need], assumptions: Assumptions) -> int:
    """Return the number of machines of the assumed size, if parts may share them."""
    cores = sum(need.amount for need in needs if need.unit in ("cores", "shards"))
    return ceil(cores / assumptions.cores)


def rank_bottlenecks(costs: Costs, assumptions: Assumptions) -> list[tuple[str, int]]:
    """Return each single part with the orders per second that it can take, the lowest first."""
    limits = {
        "one Redis shard (a sale that is not split)": assumptions.busy * 1e6 / costs.redis_us,
        "one Redis disk's syncs": assumptions.syncs_per_s * assumptions.batch_orders / costs.calls_per_batch,
        "one Redis disk's writes": assumptions.disk_bytes_per_s / costs.aof_bytes,
        "one Postgres primary": assumptions.postgres_orders_per_s,
        "one Postgres disk's writes": assumptions.disk_bytes_per_s / costs.wal_bytes,
    }
    return sorted(((part, int(limit)) for part, limit in limits.items()), key=lambda pair: pair[1])
