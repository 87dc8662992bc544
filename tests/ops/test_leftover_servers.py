"""Leftover servers are stopped; other processes that a stale pid file names are not."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from redis import Redis

from ops.local import embedded_servers, leftover_servers
from ops.local.leftover_servers import ProcessIdentity, parse_ps_line, read_identity, stop_leftover_servers
from ops.local.subprocesses import ProcessFailed
from tests.support.servers import make_server_home, run_process


@dataclass
class Leftover:
    """Both servers of a data directory, without a supervisor."""

    home: Path
    postgres: subprocess.Popen[bytes]
    redis: subprocess.Popen[bytes]
    database_url: str

    @property
    def pid_file(self) -> Path:
        return self.home / "postgres" / "data" / "postmaster.pid"


@pytest.fixture(scope="module")
def leftover() -> Iterator[Leftover]:
    home = make_server_home()
    try:
        redis, postgres = embedded_servers.prepare_redis_server(home), embedded_servers.prepare_postgres_server(home)
        with run_process(redis.spec) as redis_process, run_process(postgres.spec) as postgres_process:
            yield Leftover(home, postgres_process, redis_process, postgres.url)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a data directory without servers, and the folder of a cluster in it."""
    folder = Path(tempfile.mkdtemp(prefix="fg-"))
    (folder / "postgres" / "data").mkdir(parents=True)
    (folder / "redis").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A harmless process with the words of a Postgres server among its arguments, running in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)", "postgres", "-D", folder]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=folder) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
            process.kill()


def write_pid_file(home: Path, text: str) -> list[Path]:
    """Write the text as Postgres's two lock files."""
    files = [home / "postgres" / "data" / "postmaster.pid", home / "postgres" / ".s.PGSQL.5432.lock"]
    for file in files:
        file.write_text(text)
    return files


def describe_stale_server(home: Path, pid: int | str, started_at: float) -> str:
    return f"{pid}\n{home / 'postgres' / 'data'}\n{started_at:.0f}\n5432\n{home / 'postgres'}\n\n"


async def test_stale_pid_file_with_a_bystander_is_removed_and_signals_nobody(
    home: Path, bystander: subprocess.Popen[bytes]
) -> None:
    files = write_pid_file(home, describe_stale_server(home, bystander.pid, time.time()))
    await stop_leftover_servers(home)
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.3)
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("started", ["as itself", "a day ago"])
async def test_pid_of_another_server_is_not_signalled(home: Path, leftover: Leftover, started: str) -> None:
    lines = leftover.pid_file.read_text().splitlines()
    started_at = float(lines[2]) - (86_400 if started == "a day ago" else 0)
    files = write_pid_file(home, describe_stale_server(home, leftover.postgres.pid, started_at))
    await stop_leftover_servers(home)
    with pytest.raises(subprocess.TimeoutExpired):
        leftover.postgres.wait(0.3)
    assert not any(file.exists() for file in files)
    await check_connects(leftover)


async def test_server_of_another_start_time_is_refused_and_not_signalled(leftover: Leftover) -> None:
    """The pid is that of this cluster's server and the start time is not: it may be any of its processes."""
    genuine = leftover.pid_file.read_text()
    lines = genuine.splitlines()
    lines[2] = str(int(lines[2]) - 86_400)
    leftover.pid_file.write_text("\n".join(lines) + "\n")
    try:
        with pytest.raises(ProcessFailed, match=f"process {leftover.postgres.pid}"):
            await stop_leftover_servers(leftover.home)
        await check_connects(leftover)
        assert leftover.pid_file.exists()
    finally:
        leftover.pid_file.write_text(genuine)


@pytest.mark.parametrize(
    "text", ["", "\n", "x\n", "0\n", "-1\n", "1\n", "99999999999999999999\n", "4194305\n/x\n", "7"]
)
async def test_broken_pid_file_signals_nobody(home: Path, text: str) -> None:
    files = write_pid_file(home, text)
    await stop_leftover_servers(home)
    assert not any(file.exists() for file in files)


async def test_redis_of_another_directory_is_not_stopped(home: Path, leftover: Leftover) -> None:
    (home / "redis" / "redis.sock").symlink_to(leftover.home / "redis" / "redis.sock")
    with pytest.raises(ProcessFailed, match="another directory"):
        await stop_leftover_servers(home)
    with closing(Redis(unix_socket_path=str(leftover.home / "redis" / "redis.sock"))) as client:
        assert client.ping()


def test_redis_without_its_socket_is_stopped(home: Path) -> None:
    with run_process(embedded_servers.prepare_redis_server(home).spec) as process:
        (home / "redis" / "redis.sock").unlink()
        asyncio.run(stop_leftover_servers(home))
        assert process.wait(5) == 0


@pytest.mark.parametrize("noted", ["now", "a day ago", "in its directory a day ago"])
async def test_pid_file_of_redis_that_names_a_bystander_signals_nobody(
    home: Path, bystander: subprocess.Popen[bytes], noted: str
) -> None:
    file = home / "redis" / "redis.pid"
    if "in its directory" in noted:
        process = read_identity(bystander.pid)
        assert process
        assert process.directory
        (home / "redis").rmdir()
        (home / "redis").symlink_to(process.directory)
    file.write_text(f"{bystander.pid}\n")
    if "a day ago" in noted:
        os.utime(file, (time.time() - 86_400,) * 2)
    await stop_leftover_servers(home)
    with pytest.raises(subprocess.TimeoutExpired):
        bystander.wait(0.3)


@pytest.mark.parametrize("text", ["", "x\n", "0\n", "-1\n", "1\n", "99999999999999999999\n"])
async def test_broken_pid_file_of_redis_signals_nobody(home: Path, text: str) -> None:
    (home / "redis" / "redis.pid").write_text(text)
    await stop_leftover_servers(home)


async def test_leftover_servers_are_stopped(leftover: Leftover) -> None:
    """Keep it last: the servers of the tests above end."""
    await stop_leftover_servers(leftover.home)
    assert leftover.postgres.wait(5) == 0
    assert leftover.redis.wait(5) == 0
    assert not leftover.pid_file.exists()
    await stop_leftover_servers(leftover.home)


async def check_connects(leftover: Leftover) -> None:
    connection = await asyncpg.connect(leftover.database_url.replace("/floodgate?", "/postgres?"))
    await connection.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "Thu Nov  5 21:04:09 2026 /opt/pg/bin/postgres -D /home/my shop/data -c listen_addresses=",
            "/home/my shop/data",
        ),
        ("Thu Nov  5 21:04:09 2026 /opt/pg/bin/postgres", None),
    ],
)
def test_line_of_ps_names_program_directory_and_start(line: str, expected: str | None) -> None:
    directory = Path(expected) if expected else None
    started_at = time.mktime((2026, 11, 5, 21, 4, 9, 0, 0, -1))
    assert parse_ps_line(line) == ProcessIdentity("postgres", directory, started_at)


def test_line_of_ps_without_process_is_none() -> None:
    assert parse_ps_line("") is None


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps")
def test_ps_and_proc_agree_on_the_start_of_a_process(
    bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_proc = read_identity(bystander.pid)
    monkeypatch.setattr(leftover_servers, "_HAS_PROC", False)
    by_ps = read_identity(bystander.pid)
    assert by_proc
    assert by_ps
    assert by_ps.started_at == pytest.approx(by_proc.started_at, abs=2)
    assert by_ps.directory
    assert by_ps.directory.samefile(by_proc.directory or "")
