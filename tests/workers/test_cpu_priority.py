"""Workers give way to what customers wait for: gateways, the order writer, databases."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.settings import Settings
from ops.local.subprocesses import RunningProcess
from tests.support.processes import Processes, run_processes
from tests.support.sales import eventually
from workers import cpu_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep their priorities")


@pytest.fixture
async def processes(settings: Settings, tmp_path: Path) -> AsyncIterator[Processes]:
    async with run_processes(settings, tmp_path) as processes:
        yield processes


def priorities_of(process_id: int) -> list[int]:
    """Return the nice value of a process and, if its session is an autogroup, that of the session."""
    session = [int(value) for value in read_autogroup(process_id).split()[-1:]]
    return [os.getpriority(os.PRIO_PROCESS, process_id), *session]


def read_autogroup(process_id: int | str) -> str:
    """Return what Linux says about the session: nothing if the feature is missing or was off."""
    path = Path(f"/proc/{process_id}/autogroup")
    return path.read_text() if path.exists() else ""


async def wait_until_started(running: RunningProcess, home: Path) -> None:
    async def has_started() -> bool:
        assert running.process.returncode is None
        return any('"started"' in log.read_text() for log in home.glob("*.log"))

    await eventually(has_started, timeout_s=30)


@pytest.mark.parametrize(
    "names", [("sale_sync", "release_worker"), ("order_writer",), ("sale_sync", "order_writer"), ("product_index",)]
)
async def test_worker_gives_way_unless_customers_wait_for_it(
    processes: Processes, tmp_path: Path, names: tuple[str, ...]
) -> None:
    own = priorities_of(os.getpid())
    running = await processes.worker(*names)
    await wait_until_started(running, tmp_path)
    started = priorities_of(running.process.pid)
    if {"order_writer", "product_index"} & {*names}:
        assert started == [own[0], 0][: len(started)]
    else:
        assert started == [cpu_priority.NICE] * len(started)
    assert priorities_of(os.getpid()) == own


def test_session_of_another_process_keeps_its_priority() -> None:
    """A worker that is started from a shell does not slow down the shell."""
    before = read_autogroup("self")
    code = "import os; from workers.cpu_priority import lower_cpu_priority as lower; lower(); print(os.nice(0))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == cpu_priority.NICE
    assert read_autogroup("self") == before


def test_refusal_is_logged_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*values: int) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "getpriority", lambda *values: 0)
    with caplog.at_level(logging.INFO):
        cpu_priority.lower_cpu_priority()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "cannot lower the CPU priority")
    ]


def test_write_that_comes_too_soon_is_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes of one machine that start at once refuse each other."""
    path, refusals = tmp_path / "autogroup", [BlockingIOError("too soon"), BlockingIOError("too soon")]
    path.write_text("/autogroup-1 nice 0\n")

    class FakeAutogroup:
        def exists(self) -> bool:
            return True

        def read_text(self) -> str:
            return path.read_text()

        def write_text(self, text: str) -> None:
            if refusals:
                raise refusals.pop()
            path.write_text(text)

    monkeypatch.setattr(cpu_priority, "_AUTOGROUP", FakeAutogroup())
    monkeypatch.setattr(cpu_priority, "_PAUSE_S", 0)
    monkeypatch.setattr(os, "setpriority", lambda *values: None)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    cpu_priority.lower_cpu_priority()
    assert (path.read_text(), refusals) == (str(cpu_priority.NICE), [])


@pytest.mark.parametrize("content", ["", None], ids=["switched off", "not built in"])
def test_session_that_is_no_autogroup_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "autogroup"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(cpu_priority, "_AUTOGROUP", path)
    monkeypatch.setattr(os, "setpriority", lambda *values: None)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    cpu_priority.lower_cpu_priority()
    assert (path.read_text() if path.exists() else None) == content
