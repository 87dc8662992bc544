"""Data directories with any name: their paths in URLs, socket lists and files."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from redis import Redis

from config.settings import SettingsError, load
from ops.local import embedded_servers, server_sockets
from ops.local.sandbox_setup import toml_string
from ops.local.subprocesses import ProcessFailed
from tests.ops.test_up import UpProcess
from tests.support.servers import make_server_home, run_process

NAMES = [
    "a b",
    "50%41",
    "a#b",
    "a?b=c&d",
    "a,b",
    "it's",
    'a"b',
    'a\\b"',
    "[1]*{}",
    "~",
    "$HOME`id`;",
    "é 商店",
    "x" * 80,
    "-- a",
    "a:6379@b",
]


@pytest.fixture
def root() -> Iterator[Path]:
    """Yield a directory with a short path that Postgres's user may enter."""
    folder = make_server_home()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", NAMES)
def test_redis_in_any_directory_answers_at_its_url(root: Path, name: str) -> None:
    home = root / name
    server = embedded_servers.prepare_redis_server(home)
    values = tomllib.loads(f"redis_url = {toml_string(server.url)}")
    with run_process(server.spec), Redis.from_url(values["redis_url"]) as client:
        assert client.config_get("dir")["dir"] == str(home / "redis")
    shutil.rmtree(server_sockets.find_socket_dir(home, "redis"))


def test_postgres_in_directory_with_comma_answers_at_its_url(root: Path) -> None:
    home = root / "a,b"
    server = embedded_servers.prepare_postgres_server(home)
    with run_process(server.spec):
        assert asyncio.run(read_data_directory(server.url)) == str(home / "postgres" / "data")
    shutil.rmtree(server_sockets.find_socket_dir(home, "postgres"))


async def read_data_directory(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval("SHOW data_directory"))
    finally:
        await connection.close()


def test_socket_folder_of_another_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "a,b"
    short = server_sockets.find_socket_dir(home, "redis").parent
    short.symlink_to(root)
    try:
        with pytest.raises(ProcessFailed, match="another user"):
            embedded_servers.prepare_redis_server(home)
    finally:
        short.unlink()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: f"/{'t' * 90}")
    with pytest.raises(ProcessFailed, match="shorter TMPDIR"):
        embedded_servers.prepare_redis_server(home)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("data", "{cwd}/data"), ("~/x", "{home}/x"), ("~", "{home}"), ("a/~", "{cwd}/a/~"), ("/a", "/a")],
)
def test_relative_paths_in_settings_become_absolute_once(
    path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "zoe"))
    for name in ("DATA_DIR", "METRICS_DIR", "LOG__FILE", "SANDBOX__FAULT_SCENARIO"):
        monkeypatch.setenv(f"FLOODGATE_{name}", path)
    settings = load()
    paths = (settings.data_dir, settings.metrics_dir, settings.log.file, settings.sandbox.fault_scenario)
    assert {str(path) for path in paths} == {expected.format(cwd=tmp_path, home=tmp_path / "zoe")}


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a\nb", os.fsdecode(b"a\xff")])
def test_path_that_cannot_be_written_down_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_DATA_DIR", path)
    with pytest.raises(SettingsError, match="path"):
        load()


@pytest.mark.timeout(120)
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_up_in_odd_directory_on_ipv6_takes_orders(root: Path) -> None:
    up = UpProcess(root / "it's 50%41#?[1] ~é")
    up.env |= {"FLOODGATE_HTTP__HOST": "::1", "FLOODGATE_HTTP__ADMIN_HOST": "::1", "FLOODGATE_HTTP__PROCESSES": "1"}
    try:
        await up.start()
        assert f"http://[::1]:{up.admin_port}/docs" in up.output
        await up.curl()
        async with aiohttp.ClientSession() as client, client.get(f"http://[::1]:{up.admin_port}/metrics") as response:
            assert 'floodgate_orders_total{outcome="accepted"} 1.0' in await response.text()
        status, output = await up.command("audit", "--json")
        assert status == 0, output
        assert "the data is kept" in await up.stop()
    finally:
        for pid in up.processes():
            os.kill(pid, 9)


@pytest.mark.parametrize("name", ['a"b', "a$b", "a`b", "a\\b"])
def test_programs_of_postgres_are_not_copied_where_they_cannot_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's own copies only; servers on the PATH take such a directory."""
    monkeypatch.setattr(embedded_servers, "_is_open_to_all", lambda _: False)
    with pytest.raises(ProcessFailed, match="set FLOODGATE_DATA_DIR to another one, or install Postgres"):
        embedded_servers._make_executable(tmp_path / "bin", tmp_path / name, 65534)
