"""Redis and Postgres that an earlier run left behind because it was killed.

A pid file outlives its server, and the system uses the number for another process. So a process is stopped only if its
executable, its directory and its start time are those of our server.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from ops.local.server_sockets import POSTGRES_SOCKET, REDIS_SOCKET, find_socket_dir
from ops.local.subprocesses import ProcessFailed

REDIS_PID_FILE = "redis.pid"
_POLL_INTERVAL_S = 0.05
_TIMEOUT_S = 30
_START_TOLERANCE_S = 30
"""between a process's start and the moment in its server's pid file"""
_HAS_PROC = Path("/proc/self/stat").exists()  # not on macOS
_PS_LINE = re.compile(r"(\w{3} \w{3} +\d+ [\d:]{8} \d{4}) +(.+)")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Identity of a process that a later one with its number lacks. `started_at` counts from 1970."""

    program: str
    directory: Path | None
    started_at: float


@dataclass(frozen=True, slots=True)
class _PidFile:
    """The lines of `postmaster.pid` that identify its server."""

    pid: int
    directory: Path
    started_at: int


async def stop_leftover_servers(data_dir: Path) -> None:
    """Stop the servers of this data directory that still run; remove the lock files of others.

    Raises `ProcessFailed` if a server does not end, or if it is not certain that it is ours.
    """
    await _stop_postgres(data_dir)
    await _stop_redis(data_dir)


async def _stop_postgres(data_dir: Path) -> None:
    cluster = data_dir / "postgres" / "data"
    server_socket = find_socket_dir(data_dir, "postgres") / POSTGRES_SOCKET
    file = cluster / "postmaster.pid"
    noted = _read_pid_file(file)
    if noted and _is_server_of(cluster, noted):
        with suppress(ProcessLookupError):
            os.kill(noted.pid, signal.SIGINT)
        await _wait_for_end(noted.pid)
    elif _answers(server_socket):
        raise ProcessFailed(
            f"cannot start Postgres: a server that this shop did not start uses {cluster}, perhaps process "
            f"{noted.pid if noted else 'unknown'}; stop it by hand"
        )
    else:
        # Postgres refuses to start as long as any process at all has the number in one of these.
        for stale in (file, server_socket.with_name(f"{server_socket.name}.lock")):
            stale.unlink(missing_ok=True)


def _read_pid_file(file: Path) -> _PidFile | None:
    """Return the content of a `postmaster.pid`, None if there is none or it is cut."""
    try:
        pid, directory, started_at, *_ = file.read_text().split("\n")
        return _PidFile(int(pid), Path(directory), int(started_at))
    except (OSError, ValueError):
        return None


def _is_server_of(cluster: Path, noted: _PidFile) -> bool:
    process = read_identity(noted.pid) if noted.pid > 1 else None
    return (
        process is not None
        and process.program == "postgres"
        and process.directory is not None
        and _is_same(process.directory, cluster)
        and _is_same(noted.directory, cluster)
        and abs(process.started_at - noted.started_at) <= _START_TOLERANCE_S
    )


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def read_identity(pid: int) -> ProcessIdentity | None:
    """Return what identifies a running process, None if there is none or it belongs to another user."""
    try:
        if _HAS_PROC:
            program = Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")  # after an upgrade
            return ProcessIdentity(program, Path(f"/proc/{pid}/cwd").readlink(), _read_start_time(pid))
        line = subprocess.run(
            ["ps", "-ww", "-o", "lstart=,args=", "-p", str(pid)],  # noqa: S607  # macOS: always /bin/ps
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return parse_ps_line(line)


def _read_start_time(pid: int) -> float:
    """Return when a process started, from the ticks since boot that /proc has."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def parse_ps_line(line: str) -> ProcessIdentity | None:
    """Read `ps -o lstart=,args=` of a Postgres server: its directory is the argument after `-D`."""
    match = _PS_LINE.match(line.strip())
    if match is None:
        return None
    command, _, options = match[2].partition(" -D ")
    directory = options.partition(" -c ")[0]
    started_at = datetime.strptime(match[1], "%a %b %d %H:%M:%S %Y").astimezone().timestamp()
    return ProcessIdentity(Path(command).name, Path(directory) if directory else None, started_at)


def _answers(server_socket: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_TIMEOUT_S)
        try:
            probe.connect(str(server_socket))
        except OSError:
            return False
        return True


async def _stop_redis(data_dir: Path) -> None:
    home, server_socket = data_dir / "redis", find_socket_dir(data_dir, "redis") / REDIS_SOCKET
    client = Redis(unix_socket_path=str(server_socket), socket_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
    try:
        directory = Path((await client.config_get("dir"))["dir"] or "")
        if not _is_same(directory, home):
            raise ProcessFailed(
                f"cannot start Redis: the server at {server_socket} keeps its data in another directory, "
                f"{directory}; remove that socket"
            )
        pid = int((await client.info("server"))["process_id"])
        await client.shutdown(nosave=True)  # nosave: without a snapshot; the append-only file is complete
        await _wait_for_end(pid)
    except (OSError, RedisConnectionError):  # as usual: nothing listens there; or its socket is gone, or it is loading
        await _stop_unreachable_redis(home)
    finally:
        await client.aclose()


async def _stop_unreachable_redis(home: Path) -> None:
    """Stop the Redis that the pid file names: a second one would write into the same append-only file."""
    file = home / REDIS_PID_FILE
    try:
        pid, noted_at = int(file.read_text()), file.stat().st_mtime
    except (OSError, ValueError):
        return
    process = read_identity(pid) if pid > 1 else None
    if process is None or abs(process.started_at - noted_at) > _START_TOLERANCE_S:
        return
    if process.directory is None:  # `ps` tells it for Postgres only
        raise ProcessFailed(f"cannot start Redis: process {pid} may be that of an earlier run; stop it by hand")
    if _is_same(process.directory, home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        await _wait_for_end(pid)


def _is_running(pid: int) -> bool:
    """Return True if a process exists and is not a zombie."""
    if _HAS_PROC:
        with suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def _wait_for_end(pid: int) -> None:
    deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
    while _is_running(pid):
        if asyncio.get_running_loop().time() > deadline:
            raise ProcessFailed(
                f"cannot start the servers: process {pid} of an earlier run does not end; stop it by hand"
            )
        await asyncio.sleep(_POLL_INTERVAL_S)
