"""`make bench` names a wrong set-up before the load, and keeps the figures of earlier runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadtest.bench import report
from loadtest.bench.order_writing import WriteMeasurement
from loadtest.set_up import SET_UP_STATUS
from tests.support.locust_runs import run_command


@pytest.mark.parametrize(
    ("has_wrk", "out", "text"),
    [(False, "figures", "wrk is not installed"), (True, "a-file/figures", "figures cannot be written to")],
)
async def test_bench_with_wrong_set_up_is_one_line(has_wrk: bool, out: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    if has_wrk:
        (programs / "wrk").touch(0o755)
    command = [sys.executable, "-m", "loadtest.bench", "--out", str(tmp_path / out)]
    status, output = await run_command(command, {"PATH": str(programs)})
    assert status == SET_UP_STATUS, output
    [line] = output.splitlines()
    assert line.startswith("cannot run: ")
    assert text in line


def test_figures_without_comparison_are_written_without_picture(tmp_path: Path) -> None:
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={})
    assert figures.is_empty()
    figures.writing = [WriteMeasurement(1, 100.0, 200.0, {}, 0.0)]
    assert not figures.is_empty()
    report.write(figures, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["latest.json"]
