"""A program that is started, watched and stopped: a server of ours or of others."""

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

_LOG_KEPT_BYTES = 10_000_000


class ProgramFailed(Exception):
    """A program did not start. The message ends with the last lines of its log."""


async def _at_once() -> None:
    """Ready as soon as it runs."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to run something. `ready` returns when it can be used and raises until then."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    run_as: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 30
    ready: Callable[[], Awaitable[None]] = _at_once
    ready_timeout_s: float = 60


class RunningProcess:
    """A program that was started."""

    def __init__(self, program: ProcessSpec, process: asyncio.subprocess.Process) -> None:
        self.program = program
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def stop(self) -> None:
        """Ask it to end; after `stop_timeout_s` it is killed."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.program.stop_signal)
        try:
            await asyncio.wait_for(self.process.wait(), self.program.stop_timeout_s)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """As `kill -9`."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def with_parent_death_signal(argv: Sequence[str], run_as: int | None, stop_signal: signal.Signals) -> list[str]:
    """The command with `setpriv` before it, so that it ends with its parent and runs as the given user.

    Without `setpriv` (it is part of Debian's base) a child outlives a parent that was killed.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        if run_as is not None:
            raise ProgramFailed("the command `setpriv` is missing; install util-linux, or do not run this as root")
        return list(argv)
    user = [f"--reuid={run_as}", f"--regid={run_as}", "--clear-groups"] if run_as is not None else []
    return [setpriv, *user, f"--pdeathsig={stop_signal.name.removeprefix('SIG')}", "--", *argv]


async def start(program: ProcessSpec) -> RunningProcess:
    """Start it and wait until it is ready. Raises `ProgramFailed` with the end of its log."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    if program.log.exists() and program.log.stat().st_size > _LOG_KEPT_BYTES:
        program.log.replace(program.log.with_suffix(".old.log"))
    with program.log.open("ab") as log:
        begin = log.tell()
        process = await asyncio.create_subprocess_exec(
            *with_parent_death_signal(program.argv, program.run_as, program.stop_signal),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.env},
            start_new_session=True,  # Ctrl-C is for the supervisor alone, which stops the rest in order
        )
    running = RunningProcess(program, process)
    try:
        await _wait_ready(running)
    except BaseException as error:
        await running.kill()
        if isinstance(error, ProgramFailed):
            raise ProgramFailed(f"{error}\n{_tail(program.log, begin)}") from None
        raise
    return running


async def _wait_ready(running: RunningProcess) -> None:
    program = running.program
    loop = asyncio.get_running_loop()
    deadline = loop.time() + program.ready_timeout_s
    while True:
        if not running.alive:
            raise ProgramFailed(f"{program.name} ended at once with status {running.process.returncode}")
        try:
            return await asyncio.wait_for(program.ready(), program.ready_timeout_s)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is not ready; the last one is reported
            if loop.time() > deadline:
                raise ProgramFailed(f"{program.name} was not ready in {program.ready_timeout_s} s: {error}") from None
        await asyncio.sleep(0.05)


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-15:])
