"""Redis and Postgres for the tests, on Unix sockets in a temporary directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from commerce.kernel.migrations import migrate
from ops.local import embedded_servers
from ops.local.subprocesses import ProcessSpec, with_parent_death_signal

TEMPLATE = "floodgate_template"
_MEMORY = Path("/dev/shm")
_MIN_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class Servers:
    """URLs of both servers. `database_url` has `{}` in place of the database's name."""

    home: Path
    redis_url: str
    database_url: str

    def copy_template(self, name: str) -> str:
        """Return the statement that creates a database from the template.

        A copy of files begins with a checkpoint: in memory that is faster than a copy through the log, else slower.
        """
        strategy = "FILE_COPY" if self.home.is_relative_to(_MEMORY) else "WAL_LOG"
        return f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY {strategy}"


@contextmanager
def run_process(program: ProcessSpec) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, and wait until it is ready."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        process = subprocess.Popen(
            with_parent_death_signal(program.argv, program.run_as, program.stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **program.env},
            start_new_session=True,
        )
    try:
        wait_ready(program, process)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(program.stop_signal)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(program: ProcessSpec, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    """Poll until a process is ready. Raises `RuntimeError` if it ends."""
    deadline = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{program.name} ended with {process.returncode}:\n{program.log.read_text()[-3000:]}")
        try:
            asyncio.run(_ready(program))
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


async def _ready(program: ProcessSpec) -> None:
    await program.check_ready()


def make_server_home(prefix: str = "fg-") -> Path:
    """Create a folder for data of servers, which Postgres's user may enter. The caller removes it.

    It is in memory where there is enough. No test cuts the power, so none can see whether a flush reached a disk; but
    each test's database costs some hundred flushes.
    """
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if _has_memory() else None))
    home.chmod(0o755)
    return home


def _has_memory() -> bool:
    """Tell whether a file system in memory can hold the servers of a session.

    That of a container is often too small.
    """
    try:
        system = os.statvfs(_MEMORY)
    except OSError:
        return False
    runs_programs = not system.f_flag & os.ST_NOEXEC  # Postgres's may be copied into the folder
    enough = system.f_bavail * system.f_frsize >= _MIN_MEMORY_BYTES
    return enough and runs_programs and os.access(_MEMORY, os.W_OK)


@contextmanager
def run_servers() -> Iterator[Servers]:
    """Run both servers with the settings of `floodgate up`, and create a migrated template database."""
    home = make_server_home()
    try:
        redis, postgres = embedded_servers.prepare_redis_server(home), embedded_servers.prepare_postgres_server(home)
        with run_process(redis.spec), run_process(postgres.spec):
            base = postgres.url.replace("/floodgate?", "/{}?")
            asyncio.run(_make_template(base))
            yield Servers(home, redis.url, base)
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _make_template(base: str) -> None:
    connection = await asyncpg.connect(base.format("postgres"))
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await connection.close()
    connection = await asyncpg.connect(base.format(TEMPLATE))
    await migrate(connection)
    await connection.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with SIGKILL and wait for its end."""
    process.send_signal(signal.SIGKILL)
    process.wait()
