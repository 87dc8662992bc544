"""The supervisor starts in order, restarts processes that end, and stops in reverse order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ops.local.subprocesses import ProcessFailed, ProcessSpec
from ops.local.supervisor import Supervisor
from tests.support.sales import eventually


def create_spec(tmp_path: Path, name: str, code: str, **more: object) -> ProcessSpec:
    argv = [sys.executable, "-c", code]
    return ProcessSpec(name, argv, tmp_path / f"{name}.log", stop_timeout_s=2, ready_timeout_s=5, **more)  # type: ignore[arg-type]


SLEEP = "import time\ntime.sleep(600)"


async def test_killed_process_is_restarted(tmp_path: Path) -> None:
    lines: list[str] = []
    ended: list[int] = []
    supervisor = Supervisor(lines.append, ended.append)
    await supervisor.start([create_spec(tmp_path, "sleeper", SLEEP)])
    first = supervisor.list_pids()["sleeper"]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: _is_restarted(supervisor, first))
    assert ended == [first]
    assert lines == ["sleeper ended with status -9; restarting it", "sleeper runs again"]
    await supervisor.stop()
    assert supervisor.list_pids() == {}


async def _is_restarted(supervisor: Supervisor, first: int) -> bool:
    return supervisor.list_pids().get("sleeper", first) != first


async def test_process_that_does_not_start_reports_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor()
    bad = create_spec(tmp_path, "bad", "import sys\nprint('the reason')\nsys.exit(3)", check_ready=_fail_check)
    with pytest.raises(ProcessFailed, match=r"bad ended at once with status 3(.|\n)*the reason"):
        await supervisor.start([bad])
    slow = create_spec(tmp_path, "slow", SLEEP, check_ready=_fail_check)
    with pytest.raises(ProcessFailed, match=r"slow was not ready in 5 s: not yet"):
        await supervisor.start([slow])
    await supervisor.stop()


async def _fail_check() -> None:
    raise RuntimeError("not yet")


async def test_stop_ends_last_stage_first_and_kills_after_timeout(tmp_path: Path) -> None:
    order: list[str] = []
    supervisor = Supervisor()
    ignores_sigterm = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    slow = (
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: time.sleep(0.3) or exit())\n"
        f"print('slow', flush=True)\n{SLEEP}"
    )
    await supervisor.start([create_spec(tmp_path, "first", slow)])
    await supervisor.start([create_spec(tmp_path, "second", ignores_sigterm)])
    await eventually(lambda: _has_logged(tmp_path / "second.log", "deaf"))
    await eventually(lambda: _has_logged(tmp_path / "first.log", "slow"))
    pids = supervisor.list_pids()

    async def watch() -> None:
        while len(order) < 2:
            for name, pid in pids.items():
                if name not in order and not _is_alive(pid):
                    order.append(name)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    await supervisor.stop()
    await asyncio.wait_for(watching, 20)
    assert order == ["second", "first"]


async def _has_logged(log: Path, text: str) -> bool:
    return text in log.read_text()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
