"""The capacity model: units, what it takes from the benchmark's file, and which part gives way first."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from loadtest.capacity import Assumptions, Costs, NoFigures, first_bottleneck, machines, needs, read
from ops.cli import app

COSTS = Costs(
    gateway_us=30, redis_us=10, writer_us=12, postgres_us=9, wal_bytes=750, waiting_bytes=600
)  # round figures of the right size
ASSUMPTIONS = Assumptions(busy=0.5, postgres_orders_per_s=40_000, syncs_per_s=1_000, batch_orders=100)


def write(path: Path, **changes: object) -> Path:
    """A benchmark's file with what the model reads of it."""
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


def test_an_order_that_costs_twice_takes_twice_the_cores() -> None:
    small = {(need.part, need.unit): need.amount for need in needs(COSTS, 10_000, ASSUMPTIONS)}
    large = {(need.part, need.unit): need.amount for need in needs(COSTS, 20_000, ASSUMPTIONS)}
    assert small["gateway", "cores"] == pytest.approx(10_000 * 30e-6 / 0.5)
    assert small["Redis", "shards"] == pytest.approx(0.2)
    assert small["Postgres log", "MB/s"] == pytest.approx(7.5)
    assert small["a minute's backlog in Redis", "GB"] == pytest.approx(0.36)
    assert all(large[part] == pytest.approx(2 * amount) for part, amount in small.items())


def test_a_part_of_which_one_is_not_enough_says_so() -> None:
    at = {
        size: {need.part for need in needs(COSTS, size, ASSUMPTIONS) if need.bottleneck} for size in (10_000, 100_000)
    }
    assert at[10_000] == set()
    assert at[100_000] == {"Redis", "Postgres"}
    needed = needs(COSTS, 583_000, ASSUMPTIONS)
    assert "Redis disk" in {need.part for need in needed if need.bottleneck}
    assert machines(needed, ASSUMPTIONS) == 5  # 583,000 orders of 61 µs at half load are 71.1 cores


def test_what_gives_way_first_comes_first() -> None:
    found = first_bottleneck(COSTS, ASSUMPTIONS)
    assert found[0] == ("one Postgres primary", 40_000)
    assert found[1] == ("one Redis shard (a sale that is not split)", 50_000)
    assert [limit for _, limit in found] == sorted(limit for _, limit in found)


def test_the_costs_come_from_the_benchmarks_file(tmp_path: Path) -> None:
    assert read(write(tmp_path / "latest.json")) == COSTS


@pytest.mark.parametrize("missing", [{"writing": []}, {"turns": {}}, {"shape": None}])
def test_a_run_without_all_parts_is_not_enough(tmp_path: Path, missing: dict[str, object]) -> None:
    with pytest.raises(NoFigures, match="make bench"):
        read(write(tmp_path / "latest.json", **missing))


def test_the_command_shows_needs_limits_and_assumptions(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["capacity", "--figures", str(write(tmp_path / "latest.json")), "20000"])
    assert shown.exit_code == 0, shown.output
    assert "20,000 orders/s" in shown.output
    assert "one of each is enough" in shown.output
    assert "postgres_orders_per_s" in shown.output
    none = CliRunner().invoke(app, ["capacity", "--figures", str(tmp_path / "none.json")])
    assert none.exit_code == 1
    assert "make bench" in " ".join(none.output.split())
