"""`floodgate up`: a whole shop on one machine under one supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from commerce.kernel import metrics
from commerce.kernel.bind import format_address, local_url
from commerce.kernel.clock import SystemClock
from commerce.kernel.durable_files import replace_file
from commerce.kernel.errors import NotReady
from commerce.kernel.migrations import migrate
from commerce.kernel.postgres import connect
from commerce.kernel.stop_signals import stop_on_signals
from commerce.kernel.tasks import cancel_and_wait
from config.settings import Settings, SettingsError, load, local_file, servers_file
from gateway.auth import sign_token
from ops.commands.console import print_line, print_text
from ops.local import demo_sales, demo_support, embedded_servers
from ops.local.leftover_servers import stop_leftover_servers
from ops.local.sandbox_setup import (
    build_sandbox_settings,
    build_sandbox_spec,
    has_no_carriers,
    has_no_providers,
    toml_string,
)
from ops.local.search_process import INDEX_WORKERS, choose_index
from ops.local.subprocesses import ProcessFailed, ProcessSpec
from ops.local.supervisor import Supervisor
from ops.services import open_cli_services
from ops.shop_backup import restore_shop

_TOKEN_TTL_S = 7 * 86_400
_PORT_VARIABLES = "FLOODGATE_HTTP__PORT, FLOODGATE_HTTP__ADMIN_PORT and FLOODGATE_SANDBOX__PORT"
_WORKERS = (
    ("writer", ("order_writer",)),
    ("payments", ("payment_worker",)),
    ("fulfilment", ("fulfilment_worker", "aftersales_worker", "picture_worker", "product_indexer")),
    (
        "maintenance",
        (
            *("release_worker", "sale_sync", "room_keeper", "wait_list_keeper", "screening_worker"),
            *("quality_worker", "retention_worker", "observer", "auditor"),
        ),
    ),
)
"""worker processes: name, workers"""
_MIGRATION_TIMEOUT_S = 600


async def up(data_dir: Path | None, with_demo: bool, restore_from: Path | None = None) -> None:
    """Run a shop until SIGINT, SIGTERM or SIGHUP.

    `data_dir` replaces the setting. With `restore_from`, a backup's directory, the shop begins with its content and has
    no demonstration. Raises `NotReady` or `SettingsError` if the shop cannot be started.
    """
    with_demo = with_demo and restore_from is None
    if data_dir is not None:
        os.environ["FLOODGATE_DATA_DIR"] = str(data_dir.absolute())
    home = load().data_dir
    stop = _create_stop_event()
    with _lock_data_dir(home):
        servers_file(home).unlink(missing_ok=True)
        settings = _load_with_signing_key(home)
        _check_ports(settings)
        supervisor = Supervisor(on_event=lambda line: print_line(f"  {line}"), on_end=metrics.drop_process)
        try:
            await _run_until(stop, _start(supervisor, settings, with_demo, restore_from))
            if not stop.is_set():
                _print_welcome(load(), with_demo, _describe_sandbox(settings))
                await stop.wait()
            print_line("stopping")
        except ProcessFailed as error:
            raise NotReady(str(error)) from None
        finally:
            await supervisor.stop()
            servers_file(home).unlink(missing_ok=True)
        print_line("stopped; the data is kept")


def _create_stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    stop_on_signals(stop)
    return stop


async def _run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run async code, and cancel it if `stop` is set before it ends."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        await cancel_and_wait(task)
        return
    task.result()


@contextmanager
def _lock_data_dir(home: Path) -> Iterator[None]:
    """Hold the lock of a data directory: two supervisors would fight over its servers.

    Raises `NotReady` if it is locked, `SettingsError` if the directory cannot be created.
    """
    try:
        embedded_servers.make_traversable_folder(home)
        (home / "run").mkdir(exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot use {home}: {error.strerror}; set FLOODGATE_DATA_DIR") from None
    with (home / "run" / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip()
            raise NotReady(f"cannot start: a shop runs already with the data in {home}; stop process {pid}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _load_with_signing_key(home: Path) -> Settings:
    """Load the settings, and create a key that signs tokens if they have none."""
    settings = load()
    if settings.auth.keys:
        return settings
    file = local_file(home)
    if file.exists():
        raise SettingsError(
            f"cannot use {file}: it has no key in auth.keys; delete it, and the next start creates one (tokens of the "
            "old key are refused then)"
        )
    text = (
        "# Created by `floodgate up` for this machine. Tokens are signed with this key: keep it secret.\n"
        f'[[auth.keys]]\nkid = "local-{secrets.token_hex(4)}"\nsecret = "{secrets.token_hex(32)}"\n'
    )
    replace_file(file, text.encode(), 0o600)
    return load()


def _check_ports(settings: Settings) -> None:
    """Raise `NotReady` if a port is in use.

    Gateways share their port, so a second shop would share it unnoticed.
    """
    http = settings.http
    ports = {(http.host, http.port), (http.admin_host, http.admin_port)}
    if _needs_sandbox(settings):
        ports.add(("127.0.0.1", settings.sandbox.port))
    for host, port in ports:
        if port == 0:
            raise SettingsError(f"cannot start: `floodgate up` needs fixed ports, not 0; set {_PORT_VARIABLES}")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise NotReady(
                    f"cannot use {format_address(host, port)}: {error.strerror}; stop the program that uses it, or set "
                    f"{_PORT_VARIABLES}"
                ) from None


async def _start(supervisor: Supervisor, settings: Settings, with_demo: bool, restore_from: Path | None) -> None:
    home = settings.data_dir
    redis_url, database_url = await _start_servers(supervisor, settings)
    metrics_dir = home / "run" / "metrics"
    shutil.rmtree(metrics_dir, ignore_errors=True)
    metrics_dir.mkdir(parents=True)
    metrics.enable_multiprocess(metrics_dir)
    needs_sandbox = _needs_sandbox(settings)
    sandbox_settings = build_sandbox_settings(settings, home) if needs_sandbox else ""
    demo_settings = "" if not with_demo or settings.support.certificates else demo_support.settings_text()
    _write_servers_file(home, redis_url, database_url, sandbox_settings + demo_settings)
    await _prepare_database(database_url, restore_from)
    if with_demo:
        async with open_cli_services(load()) as shop:
            await demo_sales.create_demo(shop)
    env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "FLOODGATE_METRICS_DIR": str(metrics_dir)}
    if needs_sandbox:
        await supervisor.start([build_sandbox_spec(settings)])
    processes = settings.http.processes or os.cpu_count() or 1
    index = choose_index(settings)
    env["FLOODGATE_CATALOG__SEARCH"] = index
    workers = [*_WORKERS, ("search", INDEX_WORKERS)] if index == "memory" else _WORKERS
    specs = [_python_spec(settings, name, ["workers", *names, "--instance", name], env) for name, names in workers]
    gateway_env = {**env, "PYTHONHASHSEED": str(secrets.randbits(32))}  # the same for all: they share known keys
    specs += [_gateway_spec(settings, number, gateway_env) for number in range(1, processes + 1)]
    await supervisor.start(specs)


async def _prepare_database(url: str, restore_from: Path | None) -> None:
    """Bring the database to this version's schema, after a backup was restored into it if one is named."""
    if restore_from is not None:
        for line in await restore_shop(restore_from, load()):
            print_line(f"  {line}")
        return
    connection = await connect(url, name="migrate", timeout_s=_MIGRATION_TIMEOUT_S)
    try:
        await migrate(connection)
    finally:
        await connection.close()


async def _start_servers(supervisor: Supervisor, settings: Settings) -> tuple[str, str]:
    """Start the servers that the settings do not name, and return the URLs of Redis and Postgres."""
    home = settings.data_dir
    await stop_leftover_servers(home)
    specs = []
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if redis_url is None:
        redis = embedded_servers.prepare_redis_server(home)
        redis_url = redis.url
        specs.append(redis.spec)
    database_url = settings.database_url.get_secret_value() if settings.database_url else None
    if database_url is None:
        postgres = await asyncio.to_thread(embedded_servers.prepare_postgres_server, home)
        database_url = postgres.url
        specs.append(postgres.spec)
    for spec in specs:
        print_line(f"  starting {spec.name}: {spec.argv[0]}")
    await supervisor.start(specs)
    return redis_url, database_url


def _write_servers_file(home: Path, redis_url: str, database_url: str, more: str) -> None:
    """Write the settings by which commands in other terminals find the servers and the sandbox.

    `more` are those of the sandbox and the demonstration."""
    file = servers_file(home)
    text = f"redis_url = {toml_string(redis_url)}\ndatabase_url = {toml_string(database_url)}\n{more}"
    replace_file(file, text.encode(), 0o600)


def _needs_sandbox(settings: Settings) -> bool:
    """Return True if the settings lack accounts at providers, at carriers, or both."""
    return has_no_providers(settings) or has_no_carriers(settings)


def _describe_sandbox(settings: Settings) -> list[str]:
    """Return a line for each part of the shop that the sandbox simulates."""
    page, hour_s = f"http://127.0.0.1:{settings.sandbox.port}", 3_600 / settings.sandbox.time_factor
    lines = [f"Payments: simulated; pay and refuse at {page}"] if has_no_providers(settings) else []
    if has_no_carriers(settings):
        lines.append(f"Shipments: simulated; an hour takes {hour_s:g} s, move and lose them at {page}")
    return lines


def _python_spec(settings: Settings, name: str, module: list[str], env: dict[str, str]) -> ProcessSpec:
    logs = settings.data_dir / "logs"
    return ProcessSpec(
        name,
        [sys.executable, "-m", *module],
        logs / f"{name}.out",
        env={**env, "FLOODGATE_LOG__FILE": str(logs / f"{name}.log")},
        stop_timeout_s=settings.limits.graceful_stop_s + 5,
    )


def _gateway_spec(settings: Settings, number: int, env: dict[str, str]) -> ProcessSpec:
    url = f"{local_url(settings.http.host, settings.http.port)}/health/ready"

    async def check_ready() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client, client.get(url) as response:
            response.raise_for_status()

    return replace(_python_spec(settings, f"gateway-{number}", ["gateway"], env), check_ready=check_ready)


def _print_welcome(settings: Settings, with_demo: bool, sandbox_lines: list[str]) -> None:
    """Print addresses, tokens and a first order."""
    http, clock = settings.http, SystemClock()
    base, admin = local_url(http.host, http.port), local_url(http.admin_host, http.admin_port)
    user = sign_token(settings.auth, clock, "demo-customer", "floodgate", (), _TOKEN_TTL_S)
    staff = sign_token(settings.auth, clock, "demo-admin", "floodgate-admin", ("operator",), _TOKEN_TTL_S)
    lines = [
        "",
        f"The shop is open at {base}  (API: {base}/docs)",
        f"Admin and metrics: {admin}  (API: {admin}/docs, {admin}/metrics)",
        *sandbox_lines,
        f"Data: {settings.data_dir}   A 202 means: {settings.durability}",
        "",
        f"User token:  {user}",
        f"Admin token: {staff}",
        "",
        "In another terminal, so that `floodgate` finds this shop:",
        "",
        f"export FLOODGATE_DATA_DIR={shlex.quote(str(settings.data_dir))}",
    ]
    if config := os.environ.get("FLOODGATE_CONFIG"):
        lines.append(f"export FLOODGATE_CONFIG={shlex.quote(str(Path(config).absolute()))}")
    if with_demo:
        lines += [
            "",
            "Place an order:",
            "",
            f"curl -i {base}/v1/orders -H 'Authorization: Bearer {user}' -H 'Content-Type: application/json' "
            f"-H \"Idempotency-Key: $(date +%s%N)\" -d '{demo_sales.sample_order()}'",
        ]
    lines += ["", "Ctrl-C stops everything and keeps the data."]
    print_text("\n".join(lines))
