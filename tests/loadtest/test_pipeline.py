"""The benchmark's part `pipeline`: figures of the stages, and the processor time that they count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.machine import CpuMeter, read_cpu_seconds, read_family_cpu_seconds
from loadtest.bench.pipeline import create_stage, stopped
from loadtest.bench.pipeline_figures import AnswerTimes, PipelineFigures
from loadtest.bench.pipeline_report import show_pipeline


def test_stage_counts_processes_of_shop_only(capsys: pytest.CaptureFixture[str]) -> None:
    used_s = {"gateway": 1.0, "payments": 0.5, "redis": 0.25, "postgres": 2.0, "sandbox": 8.0, "client": 16.0}
    pipeline = PipelineFigures(
        paid=create_stage(500, 2.0, used_s),
        begun=AnswerTimes(500, 20.0, 40.0),
        accepted_alone=AnswerTimes(900, 1.0, 4.0),
        accepted_beside=AnswerTimes(800, 2.0, 10.0),
    )
    pipeline.ratios = pipeline.compute_ratios()
    assert pipeline.ratios == {
        "paid_cpu_ms": 7.5,
        "paid_orders_per_s": 250.0,
        "begin_p50_ms": 20.0,
        "begin_p99_ms": 40.0,
        "accepted_p99_ms_alone": 4.0,
        "accepted_p99_ms_beside": 10.0,
        "accepted_p99_vs_alone": 2.5,
    }
    show_pipeline(pipeline)
    assert "order accepted, beside all stages: p50 2.0 ms, p99 10.0 ms of 800" in capsys.readouterr().out


def test_stopped_processes_continue_after_failure() -> None:
    def read_state() -> str:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def fail_while_stopped() -> None:
        with stopped([process.pid]):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert read_state() == "T"
            raise TimeoutError

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with pytest.raises(TimeoutError):
            fail_while_stopped()
        assert read_state() != "T"
        process.communicate(b"\n")
    assert process.returncode == 0


def test_family_includes_children_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    families = CpuMeter({"family": [os.getpid()]}, read_family_cpu_seconds)
    before = read_cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", burn], check=True)
    own = read_cpu_seconds(os.getpid()) - before
    assert families.read_used()["family"] - own >= 0.15
