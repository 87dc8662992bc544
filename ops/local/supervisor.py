"""Supervisor of processes: starts them in order, restarts those that end, stops them in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from commerce.kernel.tasks import cancel_and_wait
from ops.local.subprocesses import ProcessFailed, ProcessSpec, RunningProcess, start_process

_BACKOFF_INITIAL_S, _BACKOFF_MAX_S = 0.1, 10.0
_BACKOFF_RESET_S = 20.0
"""a process that has run so long is restarted without a growing wait"""


class Supervisor:
    """Runs stages of processes.

    `on_event` gets a line of text per event, `on_end` the pid of each process that ended.
    """

    def __init__(
        self, on_event: Callable[[str], None] = lambda line: None, on_end: Callable[[int], None] = lambda pid: None
    ) -> None:
        self._on_event = on_event
        self._on_end = on_end
        self._stages: list[list[_SupervisedProcess]] = []

    async def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start a stage of processes concurrently. Raises `ProcessFailed` if one does not start."""
        stage = [_SupervisedProcess(spec, self._on_event, self._on_end) for spec in specs]
        self._stages.append(stage)
        await asyncio.gather(*(supervised.start() for supervised in stage))

    async def stop(self) -> None:
        """Stop all stages, the last one first, each process within its time limit."""
        while self._stages:
            await asyncio.gather(*(supervised.stop() for supervised in self._stages.pop()))

    def list_pids(self) -> dict[str, int]:
        """Return the pids of the processes that run now, by name."""
        return {
            supervised.spec.name: supervised.running.pid
            for stage in self._stages
            for supervised in stage
            if supervised.running and supervised.running.is_alive
        }


class _SupervisedProcess:
    """One process that is restarted whenever it ends."""

    def __init__(self, spec: ProcessSpec, on_event: Callable[[str], None], on_end: Callable[[int], None]) -> None:
        self.spec = spec
        self.running: RunningProcess | None = None
        self._on_event = on_event
        self._on_end = on_end
        self._restarter: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.running = await start_process(self.spec)
        self._restarter = asyncio.create_task(self._restart_forever(), name=f"supervise {self.spec.name}")

    async def stop(self) -> None:
        if self._restarter is not None:
            await cancel_and_wait(self._restarter)
        if self.running is not None:
            await self.running.stop()

    async def _restart_forever(self) -> None:
        """Restart the process whenever it ends. The wait doubles while the process does not stay up."""
        loop = asyncio.get_running_loop()
        wait_s = _BACKOFF_INITIAL_S
        started = loop.time()
        while True:
            assert self.running is not None
            status = await self.running.process.wait()
            self._on_end(self.running.pid)
            if loop.time() - started > _BACKOFF_RESET_S:
                wait_s = _BACKOFF_INITIAL_S
            self._on_event(f"{self.spec.name} ended with status {status}; restarting it")
            while True:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _BACKOFF_MAX_S)
                try:
                    self.running = await start_process(self.spec)
                    break
                except ProcessFailed as error:
                    self._on_event(f"{self.spec.name} did not start: {error}")
            started = loop.time()
            self._on_event(f"{self.spec.name} runs again")
