"""Keeps programs running: starts them in order, restarts what dies, stops them in the reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from commerce.kernel.tasks import cancel_and_wait
from ops.local.subprocesses import ProcessSpec, ProgramFailed, RunningProcess, start

_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.1, 10.0
_SETTLED_S = 20.0


class Supervisor:
    """`on_event` is told in a line what happens; `on_end` gets the pid of each process that has ended."""

    def __init__(
        self, on_event: Callable[[str], None] = lambda line: None, on_end: Callable[[int], None] = lambda pid: None
    ) -> None:
        self._on_event = on_event
        self._on_end = on_end
        self._stages: list[list[_Kept]] = []

    async def start(self, programs: Sequence[ProcessSpec]) -> None:
        """Start a stage: all of these at once. Raises `ProgramFailed` if one does not start, and stops its stage."""
        stage = [_Kept(program, self._on_event, self._on_end) for program in programs]
        self._stages.append(stage)
        await asyncio.gather(*(kept.start() for kept in stage))

    async def stop(self) -> None:
        """Stop the last stage first, each within its programs' time limits."""
        while self._stages:
            await asyncio.gather(*(kept.stop() for kept in self._stages.pop()))

    def pids(self) -> dict[str, int]:
        """Names and pids of what runs now."""
        return {
            kept.program.name: kept.running.pid
            for stage in self._stages
            for kept in stage
            if kept.running and kept.running.alive
        }


class _Kept:
    """One program that is kept running."""

    def __init__(self, program: ProcessSpec, on_event: Callable[[str], None], on_end: Callable[[int], None]) -> None:
        self.program = program
        self.running: RunningProcess | None = None
        self._on_event = on_event
        self._on_end = on_end
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.running = await start(self.program)
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.program.name}")

    async def stop(self) -> None:
        if self._watcher is not None:
            await cancel_and_wait(self._watcher)
        if self.running is not None:
            await self.running.stop()

    async def _watch(self) -> None:
        """Restart it whenever it ends. The wait before a restart doubles while it does not stay up."""
        loop = asyncio.get_running_loop()
        wait_s = _BACKOFF_FIRST_S
        started = loop.time()
        while True:
            assert self.running is not None
            status = await self.running.process.wait()
            self._on_end(self.running.pid)
            if loop.time() - started > _SETTLED_S:
                wait_s = _BACKOFF_FIRST_S
            self._on_event(f"{self.program.name} ended with status {status}; it is started again")
            while True:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _BACKOFF_MAX_S)
                try:
                    self.running = await start(self.program)
                    break
                except ProgramFailed as error:
                    self._on_event(f"{self.program.name} did not start: {error}")
            started = loop.time()
            self._on_event(f"{self.program.name} runs again")
