"""Capacity model: needs of a peak, costs from the benchmark's file, and the first bottleneck."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from loadtest.capacity import (
    Assumptions,
    Costs,
    NoFigures,
    compute_needs,
    count_machines,
    rank_bottlenecks,
    read_costs,
)
from ops.cli import app

COSTS = Costs(
    gateway_us=30, redis_us=10, writer_us=12, postgres_us=9, wal_bytes=750, waiting_bytes=600
)  # round figures of the right size
ASSUMPTIONS = Assumptions(busy=0.5, postgres_orders_per_s=40_000, syncs_per_s=1_000, batch_orders=100)


def write(path: Path, **changes: object) -> Path:
    """Write a benchmark's file with the members that the model reads."""
    turn = {"cpu_us": {"server": 30.0, "redis": 10.0}}
    writing = {"cpu_us": {"writer": 12.0, "postgres": 9.0}, "wal_bytes": 750.0}
    figures = {
        "turns": {"floodgate": [turn, turn]},
        "writing": [writing],
        "shape": {"redis_bytes_per_waiting_order": 600.0},
        **changes,
    }
    path.write_bytes(msgspec.json.encode(figures))
    return path


STORED = {
    "cpu_us": {"gateway": 40.0, "redis": 14.0, "writer": 13.0, "postgres": 11.0},
    "calls_per_batch": 2.0,
    "aof_bytes": 1_000.0,
}


def test_needs_of_doubled_peak_are_doubled() -> None:
    small = {(need.part, need.unit): need.amount for need in compute_needs(COSTS, 10_000, ASSUMPTIONS)}
    large = {(need.part, need.unit): need.amount for need in compute_needs(COSTS, 20_000, ASSUMPTIONS)}
    assert small["gateway", "cores"] == pytest.approx(10_000 * 30e-6 / 0.5)
    assert small["Redis", "shards"] == pytest.approx(0.2)
    assert small["Postgres log", "MB/s"] == pytest.approx(7.5)
    assert small["a minute's backlog in Redis", "GB"] == pytest.approx(0.36)
    assert all(large[part] == pytest.approx(2 * amount) for part, amount in small.items())


def test_need_above_one_part_names_the_bottleneck() -> None:
    parts = {
        size: {need.part for need in compute_needs(COSTS, size, ASSUMPTIONS) if need.bottleneck}
        for size in (10_000, 100_000)
    }
    assert parts[10_000] == set()
    assert parts[100_000] == {"Redis", "Postgres"}
    needs = compute_needs(COSTS, 583_000, ASSUMPTIONS)
    assert "Redis disk" in {need.part for need in needs if need.bottleneck}
    assert count_machines(needs, ASSUMPTIONS) == 5  # 583,000 orders of 61 µs at half load are 71.1 cores


def test_bottlenecks_are_ranked_lowest_first() -> None:
    ranking = rank_bottlenecks(COSTS, ASSUMPTIONS)
    assert ranking[0] == ("one Postgres primary", 40_000)
    assert ranking[1] == ("one Redis shard (a sale that is not split)", 50_000)
    assert [limit for _, limit in ranking] == sorted(limit for _, limit in ranking)


def test_costs_are_read_from_benchmark_file(tmp_path: Path) -> None:
    assert read_costs(write(tmp_path / "latest.json")) == COSTS


def test_costs_of_strangers_count_the_writer_in_redis(tmp_path: Path) -> None:
    costs = read_costs(write(tmp_path / "latest.json", crowd={"turns": {"stored": [STORED]}, "ratios": {}}))
    assert costs == Costs(
        gateway_us=40,
        redis_us=14,
        writer_us=13,
        postgres_us=11,
        wal_bytes=750,
        waiting_bytes=600,
        aof_bytes=1_000,
        calls_per_batch=2,
        are_strangers=True,
    )
    plain, strangers = (
        {(need.part, need.unit): need.amount for need in compute_needs(measured, 10_000, ASSUMPTIONS)}
        for measured in (COSTS, costs)
    )
    assert strangers["Redis disk", "syncs/s"] == 2 * plain["Redis disk", "syncs/s"] == 200
    assert strangers["Redis disk", "MB/s"] == pytest.approx(10)
    limits = dict(rank_bottlenecks(costs, ASSUMPTIONS))
    assert limits["one Redis disk's syncs"] == 50_000
    assert limits["one Redis disk's writes"] == 500_000


@pytest.mark.parametrize(
    "missing", [{"writing": []}, {"turns": {}}, {"shape": None}, {"crowd": {"turns": {"stored": []}}}]
)
def test_costs_of_incomplete_run_are_refused(tmp_path: Path, missing: dict[str, object]) -> None:
    with pytest.raises(NoFigures, match="make bench"):
        read_costs(write(tmp_path / "latest.json", **missing))


def test_capacity_command_prints_needs_and_assumptions(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["capacity", "--figures", str(write(tmp_path / "latest.json")), "20000"])
    assert result.exit_code == 0, result.output
    assert "20,000 orders/s" in result.output
    assert "one of each is enough" in result.output
    assert "postgres_orders_per_s" in result.output
    missing = CliRunner().invoke(app, ["capacity", "--figures", str(tmp_path / "none.json")])
    assert missing.exit_code == 1
    assert "make bench" in " ".join(missing.output.split())
