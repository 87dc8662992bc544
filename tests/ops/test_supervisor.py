"""The supervisor starts in order, restarts what dies, and stops in the reverse order."""

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


def program(tmp_path: Path, name: str, code: str, **more: object) -> ProcessSpec:
    argv = [sys.executable, "-c", code]
    return ProcessSpec(name, argv, tmp_path / f"{name}.log", stop_timeout_s=2, ready_timeout_s=5, **more)  # type: ignore[arg-type]


SLEEP = "import time\ntime.sleep(600)"


async def test_what_dies_is_started_again(tmp_path: Path) -> None:
    lines: list[str] = []
    ended: list[int] = []
    supervisor = Supervisor(lines.append, ended.append)
    await supervisor.start([program(tmp_path, "sleeper", SLEEP)])
    first = supervisor.list_pids()["sleeper"]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: _other(supervisor, first))
    assert ended == [first]
    assert lines == ["sleeper ended with status -9; restarting it", "sleeper runs again"]
    await supervisor.stop()
    assert supervisor.list_pids() == {}


async def _other(supervisor: Supervisor, first: int) -> bool:
    return supervisor.list_pids().get("sleeper", first) != first


async def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    supervisor = Supervisor()
    bad = program(tmp_path, "bad", "import sys\nprint('the reason')\nsys.exit(3)", check_ready=_never)
    with pytest.raises(ProcessFailed, match=r"bad ended at once with status 3(.|\n)*the reason"):
        await supervisor.start([bad])
    slow = program(tmp_path, "slow", SLEEP, check_ready=_never)
    with pytest.raises(ProcessFailed, match=r"slow was not ready in 5 s: not yet"):
        await supervisor.start([slow])
    await supervisor.stop()


async def _never() -> None:
    raise RuntimeError("not yet")


async def test_the_last_stage_stops_first_and_the_deaf_are_killed(tmp_path: Path) -> None:
    order: list[str] = []
    supervisor = Supervisor()
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    slow = (
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: time.sleep(0.3) or exit())\n"
        f"print('slow', flush=True)\n{SLEEP}"
    )
    await supervisor.start([program(tmp_path, "first", slow)])
    await supervisor.start([program(tmp_path, "second", deaf)])
    await eventually(lambda: _has_logged(tmp_path / "second.log", "deaf"))
    await eventually(lambda: _has_logged(tmp_path / "first.log", "slow"))
    pids = supervisor.list_pids()

    async def watch() -> None:
        while len(order) < 2:
            for name, pid in pids.items():
                if name not in order and not _lives(pid):
                    order.append(name)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    await supervisor.stop()
    await asyncio.wait_for(watching, 5)
    assert order == ["second", "first"]


async def _has_logged(log: Path, text: str) -> bool:
    return text in log.read_text()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
