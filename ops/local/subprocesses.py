"""Processes that are started, checked and stopped: Floodgate's own, Redis and Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MAX_LOG_BYTES = 10_000_000
"""a longer log is moved aside when its process starts"""
_POLL_INTERVAL_S = 0.05
_TAIL_LINES = 15


class ProcessFailed(Exception):
    """A process did not start. The message ends with the last lines of its log."""


async def _skip_check() -> None:
    """Accept a process as ready as soon as it runs."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """Command, environment and limits of one process.

    `check_ready` returns if the process can be used, and raises until then. `run_as` is a uid.
    """

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    run_as: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    check_ready: Callable[[], Awaitable[None]] = _skip_check
    ready_timeout_s: float = 60


class RunningProcess:
    """A started process."""

    def __init__(self, spec: ProcessSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    async def stop(self) -> None:
        """Send the stop signal, and kill the process after `stop_timeout_s`."""
        if not self.is_alive:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(self.process.wait(), self.spec.stop_timeout_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the process with SIGKILL and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def with_parent_death_signal(argv: Sequence[str], run_as: int | None, stop_signal: signal.Signals) -> list[str]:
    """Prefix a command with `setpriv`, so that it ends with its parent and runs as the uid `run_as`.

    Without `setpriv` (part of Debian's base) the command is returned as it is, and a child outlives a killed parent.
    Raises `ProcessFailed` if `run_as` is given and `setpriv` is missing.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        if run_as is not None:
            raise ProcessFailed(
                "cannot run a server as root: `setpriv` is missing; install util-linux or run as another user"
            )
        return list(argv)
    user = [f"--reuid={run_as}", f"--regid={run_as}", "--clear-groups"] if run_as is not None else []
    return [setpriv, *user, f"--pdeathsig={stop_signal.name.removeprefix('SIG')}", "--", *argv]


async def start_process(spec: ProcessSpec) -> RunningProcess:
    """Start a process and wait until it is ready. Raises `ProcessFailed` with the end of its log."""
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    if spec.log.exists() and spec.log.stat().st_size > _MAX_LOG_BYTES:
        spec.log.replace(spec.log.with_suffix(".old.log"))
    with spec.log.open("ab") as log:
        begin = log.tell()
        process = await asyncio.create_subprocess_exec(
            *with_parent_death_signal(spec.argv, spec.run_as, spec.stop_signal),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **spec.env},
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the others in order
        )
    running = RunningProcess(spec, process)
    try:
        await _wait_ready(running)
    except BaseException as error:
        await running.kill()
        if isinstance(error, ProcessFailed):
            raise ProcessFailed(f"{error}\n{_read_tail(spec.log, begin)}") from None
        raise
    return running


async def _wait_ready(running: RunningProcess) -> None:
    spec = running.spec
    loop = asyncio.get_running_loop()
    deadline = loop.time() + spec.ready_timeout_s
    while True:
        if not running.is_alive:
            raise ProcessFailed(f"{spec.name} ended at once with status {running.process.returncode}")
        try:
            return await asyncio.wait_for(spec.check_ready(), spec.ready_timeout_s)
        except Exception as error:  # noqa: BLE001  # any error means: not ready yet; the last one is reported
            if loop.time() > deadline:
                raise ProcessFailed(f"{spec.name} was not ready in {spec.ready_timeout_s} s: {error}") from None
        await asyncio.sleep(_POLL_INTERVAL_S)


def _read_tail(log: Path, begin: int) -> str:
    """Return the last lines of a log that were written after the position `begin`, indented."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
