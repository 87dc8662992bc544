"""Postgres behind a pooler: settings of a session hold, and a session that is shared is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from commerce.kernel.clock import SystemClock
from commerce.kernel.connection_shares import undivided
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Connection, connect, open_database
from commerce.sales.loading import load_sale
from config.settings import Settings
from gateway.dependency_checks import DatabaseMonitor
from ops.local.subprocesses import ProcessSpec
from ops.services import open_cli_services
from tests.support.gateway import open_gateway, run_workers
from tests.support.processes import free_port
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import run_process

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
SETTINGS = (
    "SELECT name, setting FROM pg_settings WHERE name IN "
    "('application_name', 'TimeZone', 'statement_timeout', 'idle_in_transaction_session_timeout', 'jit')"
)
EXPECTED = {
    "application_name": "floodgate test",
    "TimeZone": "UTC",
    "statement_timeout": "3000",
    "idle_in_transaction_session_timeout": "6000",
    "jit": "off",
}
_KNOWN_PARAMETERS = {"user", "database", "client_encoding"}
_REFUSAL = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0"


@asynccontextmanager
async def strict_proxy(database_url: str, home: Path) -> AsyncIterator[str]:
    """Run a proxy that refuses unknown start-up parameters, as PgBouncer does, and yield its URL."""
    [host] = parse_qs(urlsplit(database_url).query)["host"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)
        body = await reader.readexactly(struct.unpack("!i", head[:4])[0] - 8)
        names = {name.decode() for name in body.rstrip(b"\0").split(b"\0")[::2]}
        if names - _KNOWN_PARAMETERS:
            writer.write(b"E" + struct.pack("!i", len(_REFUSAL) + 4) + _REFUSAL)
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.5432")
        server_writer.write(head + body)
        await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))

    server = await asyncio.start_unix_server(serve, home / ".s.PGSQL.5432")
    yield database_url.replace(host, str(home))
    server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@pytest.fixture
def pgbouncer_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """Run PgBouncer in front of the test's database.

    The parameter is its pool mode, and the number of its sessions if it is limited.
    """
    mode, _, size = request.param.partition(" ")
    database, [host] = urlsplit(database_url).path[1:], parse_qs(urlsplit(database_url).query)["host"]
    run_as = Path(host).stat().st_uid if os.geteuid() == 0 else None  # PgBouncer refuses to run as root
    with tempfile.TemporaryDirectory(prefix="fg-") as name:
        home, port = Path(name), free_port()  # of the socket's name: PgBouncer does not listen on TCP
        home.chmod(0o777)
        (home / "users").write_text('"floodgate" ""\n')
        (home / "ini").write_text(
            f"[databases]\n{database} = host={host} port=5432 dbname={database}\n[pgbouncer]\nlisten_port = {port}\n"
            f"unix_socket_dir = {home}\nauth_type = trust\nauth_file = {home}/users\npool_mode = {mode}\n"
            + (f"default_pool_size = {size}\n" if size else "")
        )
        url = f"{database_url.replace(host, name)}&port={port}"

        async def check_ready() -> None:
            await (await asyncpg.connect(url, timeout=5)).close()

        argv = [str(PGBOUNCER), str(home / "ini")]
        spec = ProcessSpec(
            "pgbouncer", argv, home / "log", run_as=run_as, stop_signal=signal.SIGINT, check_ready=check_ready
        )
        with run_process(spec):
            yield url


async def _read_settings(connection: Connection) -> dict[str, str]:
    return {row["name"]: row["setting"] for row in await connection.fetch(SETTINGS)}


async def _check_settings(url: str) -> None:
    database = await open_database(url, name="test", shares=undivided(2), timeout_s=3, required_durability="fsync")

    async def check(both: asyncio.Barrier) -> None:
        async with database.transaction() as connection:
            await both.wait()
            assert await _read_settings(connection) == EXPECTED

    for _ in range(3):  # a connection that returned to the pool has them too
        both = asyncio.Barrier(2)
        await asyncio.gather(check(both), check(both))
    await database.close()
    single = await connect(url, name="test", timeout_s=3)
    assert await _read_settings(single) == EXPECTED
    await single.close()


async def test_session_settings_need_no_start_up_parameters(database_url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fg-") as home:
        await _check_settings_behind_strict_proxy(database_url, Path(home))


async def _check_settings_behind_strict_proxy(database_url: str, home: Path) -> None:
    async with strict_proxy(database_url, home) as url:
        with pytest.raises(asyncpg.ProtocolViolationError):
            await asyncpg.connect(url, server_settings={"statement_timeout": "1"})
        await _check_settings(url)


async def test_session_settings_hold_without_a_pooler(database_url: str) -> None:
    await _check_settings(database_url)


needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine")


@needs_pgbouncer
@pytest.mark.parametrize("pgbouncer_url", ["session"], indirect=True)
async def test_pgbouncer_with_session_pooling_keeps_session_settings(pgbouncer_url: str) -> None:
    await _check_settings(pgbouncer_url)


@needs_pgbouncer
@pytest.mark.parametrize("pgbouncer_url", ["session 1"], indirect=True)
async def test_monitor_behind_full_pgbouncer_needs_no_second_session(pgbouncer_url: str) -> None:
    """The pool has one session: another connection would wait for longer than the monitor does."""
    monitor = DatabaseMonitor(pgbouncer_url, SystemClock())
    assert await asyncio.wait_for(monitor._is_read_only(), 1.5) is False


@needs_pgbouncer
@pytest.mark.parametrize("pgbouncer_url", ["transaction"], indirect=True)
async def test_pgbouncer_with_transaction_pooling_is_refused_in_one_line(pgbouncer_url: str) -> None:
    for opening in (
        open_database(pgbouncer_url, name="test", shares=undivided(2), timeout_s=3),
        connect(pgbouncer_url, name="test", timeout_s=3),
    ):
        with pytest.raises(NotReady, match=r"^cannot use Postgres: .*; set the pooler to session pooling .*$"):
            await opening


@needs_pgbouncer
@pytest.mark.parametrize("pgbouncer_url", ["session 1"], indirect=True)
async def test_pgbouncer_hands_over_no_lock_or_prepared_statement(pgbouncer_url: str) -> None:
    """The next client gets the session of one that died with a lock: PgBouncer resets it in between."""
    sessions = set()
    for _ in range(3):
        connection = await connect(pgbouncer_url, name="test", timeout_s=3, must_own_session=False)
        sessions.add(await connection.fetchval("SELECT pg_backend_pid()"))
        assert await connection.fetchval("SELECT pg_try_advisory_lock(4711)")
        await connection.execute("PREPARE same_name AS SELECT 1")
        assert await _read_settings(connection) == EXPECTED
        connection.terminate()
    assert len(sessions) <= 2  # of the one that died, PgBouncer may have closed the first


@needs_pgbouncer
@pytest.mark.parametrize("pgbouncer_url", ["session"], indirect=True)
async def test_order_is_accepted_stored_and_cancelled_through_pgbouncer(
    pgbouncer_url: str, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    settings = make_settings(database_url=pgbouncer_url)
    async with (
        open_cli_services(settings) as shop,
        open_gateway(settings) as gateway,
        run_workers(settings, "order_writer", "release_worker", "sale_sync"),
    ):
        await make_sale(shop, sale_id, {"mug": (5, 100, 3)})
        placed = await gateway.order(order_body(sale_id, ("mug", 2)))
        assert placed.status == 202
        path = f"/v1/orders/{placed.body['order_id']}"

        async def is_stored() -> bool:
            return str((await gateway.call("GET", path)).body["status"]) == "awaiting_payment"

        await eventually(is_stored)
        assert (await gateway.call("POST", f"{path}/cancel")).status == 200
        await load_sale(shop.db, shop.redis, shop.clock, sale_id)  # under a lock of its session
        paused = await gateway.call("POST", f"/v1/admin/sales/{sale_id}/pause", user="ann", roles=["sales"])
        assert (paused.status, paused.body["state"]) == (200, "paused")
