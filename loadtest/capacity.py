"""From what an order costs to what a peak takes: cores, Redis shards, disks, Postgres; and what gives way first."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median

import msgspec

PEAKS = (10_000, 100_000, 583_000)
"""orders a second; the last is the peak that Alibaba published for its festival of November 2020"""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one order costs, measured: processor time in microseconds, sizes in bytes."""

    gateway_us: float
    redis_us: float
    writer_us: float
    postgres_us: float
    wal_bytes: float
    waiting_bytes: float


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here. Every command and document that shows a result shows these."""

    cores: int = 16
    """of one machine"""
    busy: float = 0.6
    """share of a core that is planned for, the rest is for what was not foreseen"""
    batch_orders: int = 128
    """orders in one Redis call at the peak: half of the most that is allowed"""
    syncs_per_s: int = 5_000
    """fsyncs a second of one disk: a data-centre NVMe drive with a capacitor"""
    disk_bytes_per_s: float = 500e6
    """sequential writes of that disk that are planned for"""
    aof_bytes: float = 700
    """Redis's append-only file, an order"""
    wire_bits: float = 8 * 1_500
    """on the network, an order: request, answer, and the way through Redis"""
    postgres_orders_per_s: int = 60_000
    """of one primary: index pages, checkpoints and its one log limit it before its cores do"""


@dataclass(frozen=True, slots=True)
class Need:
    """What a peak takes of one part; `bottleneck` is why one of it is not enough, or empty."""

    part: str
    amount: float
    unit: str
    bottleneck: str


class NoFigures(Exception):
    """The benchmark's file is missing or lacks a part. The message says how to make it."""


class _Turn(msgspec.Struct):
    cpu_us: dict[str, float]


class _Writing(msgspec.Struct):
    cpu_us: dict[str, float]
    wal_bytes: float


class _Shape(msgspec.Struct):
    redis_bytes_per_waiting_order: float


class _Figures(msgspec.Struct):
    turns: dict[str, list[_Turn]]
    writing: list[_Writing]
    shape: _Shape


def read(file: Path) -> Costs:
    """The costs from a benchmark's JSON. Raises `NoFigures`."""
    try:
        figures = msgspec.json.decode(file.read_bytes(), type=_Figures)
        turns, writing = figures.turns["floodgate"], figures.writing
        return Costs(
            gateway_us=median(turn.cpu_us["server"] for turn in turns),
            redis_us=median(turn.cpu_us["redis"] for turn in turns),
            writer_us=median(one.cpu_us["writer"] for one in writing),
            postgres_us=median(one.cpu_us["postgres"] for one in writing),
            wal_bytes=median(one.wal_bytes for one in writing),
            waiting_bytes=figures.shape.redis_bytes_per_waiting_order,
        )
    except (OSError, msgspec.MsgspecError, KeyError, ValueError) as error:
        raise NoFigures(f"{file} has not the figures of a whole run: make them with `make bench` ({error})") from None


def needs(costs: Costs, orders_per_s: int, given: Assumptions) -> list[Need]:
    """What so many orders a second take, part by part."""

    def cores(us: float) -> float:
        return orders_per_s * us / 1e6 / given.busy

    shards = cores(costs.redis_us)  # a shard is one thread
    syncs = orders_per_s / given.batch_orders
    primaries = orders_per_s / given.postgres_orders_per_s
    wal = orders_per_s * costs.wal_bytes
    aof = orders_per_s * given.aof_bytes
    return [
        Need("gateway", cores(costs.gateway_us), "cores", ""),
        Need("Redis", shards, "shards", "one sale lives in one shard, so a sale has to be split" if shards > 1 else ""),
        Need("Redis disk", syncs, "syncs/s", "more than one disk syncs" if syncs > given.syncs_per_s else ""),
        Need(*("Redis disk", aof / 1e6, "MB/s"), "more than one disk writes" if aof > given.disk_bytes_per_s else ""),
        Need("order writer", cores(costs.writer_us), "cores", ""),
        Need("Postgres", cores(costs.postgres_us), "cores", ""),
        Need("Postgres", primaries, "primaries", "more than one primary stores" if primaries > 1 else ""),
        Need("Postgres log", wal / 1e6, "MB/s", "more than one disk writes" if wal > given.disk_bytes_per_s else ""),
        Need("network", orders_per_s * given.wire_bits / 1e9, "Gbit/s", ""),
        Need("a minute's backlog in Redis", orders_per_s * 60 * costs.waiting_bytes / 1e9, "GB", ""),
    ]


def machines(found: list[Need], given: Assumptions) -> int:
    """Machines of the assumed size, if parts may share them."""
    cores = sum(need.amount for need in found if need.unit in ("cores", "shards"))
    return ceil(cores / given.cores)


def first_bottleneck(costs: Costs, given: Assumptions) -> list[tuple[str, int]]:
    """Each part of which there is one, with the orders a second at which one is no longer enough; the first first."""
    limits = {
        "one Redis shard (a sale that is not split)": given.busy * 1e6 / costs.redis_us,
        "one Redis disk's syncs": given.syncs_per_s * given.batch_orders,
        "one Redis disk's writes": given.disk_bytes_per_s / given.aof_bytes,
        "one Postgres primary": given.postgres_orders_per_s,
        "one Postgres disk's writes": given.disk_bytes_per_s / costs.wal_bytes,
    }
    return sorted(((part, int(limit)) for part, limit in limits.items()), key=lambda pair: pair[1])
