"""Gateways and workers as processes, as in production, so that tests can kill them."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from config.settings import Settings
from ops.local.subprocesses import ProcessSpec, RunningProcess, start_process


def free_port() -> int:
    """Find a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Processes:
    """Starts processes of one shop. `run_processes` stops them."""

    settings: Settings
    home: Path
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    running: list[RunningProcess] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        settings = self.settings
        keys = [{"kid": key.kid, "secret": key.secret.get_secret_value()} for key in settings.auth.keys]
        return {
            "REDIS_URL": settings.redis(),
            "DATABASE_URL": settings.database(),
            "FLOODGATE_AUTH__KEYS": orjson.dumps(keys).decode(),
            "FLOODGATE_HTTP__PORT": str(self.port),
            "FLOODGATE_HTTP__ADMIN_PORT": str(self.admin_port),
            "FLOODGATE_DATA_DIR": str(self.home),
            "FLOODGATE_DURABILITY": settings.durability,
            "FLOODGATE_REPLICAS": str(settings.replicas),
            "FLOODGATE_LIMITS": settings.limits.model_dump_json(),
            "FLOODGATE_WRITER": settings.writer.model_dump_json(),
            "FLOODGATE_JOBS": settings.jobs.model_dump_json(),
            "FLOODGATE_SHIPPING": settings.shipping.model_dump_json(),
            "FLOODGATE_SCREENING": settings.screening.model_dump_json(),
            **({"FLOODGATE_METRICS_DIR": str(settings.metrics_dir)} if settings.metrics_dir else {}),
        }

    async def gateway(self, *, crash_at: str | None = None) -> RunningProcess:
        async def ready() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)  # the gateway listens here last
            writer.close()

        return await self._start("gateway", ["gateway"], crash_at, ready)

    async def worker(self, *names: str, instance: str = "one", crash_at: str | None = None) -> RunningProcess:
        async def ready() -> None:
            return

        return await self._start("worker", ["workers", *names, "--instance", instance], crash_at, ready)

    async def _start(self, name: str, module: list[str], crash_at: str | None, ready) -> RunningProcess:  # type: ignore[no-untyped-def]
        env = {**self.environment(), **({"FLOODGATE_FAILPOINT": crash_at} if crash_at else {})}
        log = self.home / f"{name}-{len(self.running)}.log"
        running = await start_process(
            ProcessSpec(name, [sys.executable, "-m", *module], log, env=env, check_ready=ready)
        )
        self.running.append(running)
        return running


@asynccontextmanager
async def run_processes(settings: Settings, home: Path) -> AsyncIterator[Processes]:
    """Stop all processes at the end of the block, and print their logs if it fails."""
    processes = Processes(settings, home)
    try:
        yield processes
    except BaseException:
        for log in sorted(home.glob("*.log")):
            print(f"--- {log.name}", log.read_text()[-4_000:], sep="\n", file=sys.stderr)
        raise
    finally:
        await asyncio.gather(*(running.stop() for running in processes.running))


async def wait_for_exit(running: RunningProcess, timeout_s: float = 60) -> int:
    """Wait for a process that ends automatically. Returns its status; -9 if it was killed."""
    return await asyncio.wait_for(running.process.wait(), timeout_s)
