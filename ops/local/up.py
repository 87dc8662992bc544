"""`floodgate up`: everything on one machine under one supervisor."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.markup import escape

from commerce.kernel import metrics
from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import NotReady
from commerce.kernel.migrations import migrate
from commerce.kernel.postgres import connect
from commerce.kernel.tasks import cancel_and_wait
from config.settings import Settings, SettingsError, load, local_file, servers_file
from gateway.auth import sign_token
from ops.commands.console import out
from ops.local import demo_sales, embedded_servers
from ops.local.sandbox_setup import lacks_carriers, lacks_providers, sandbox_program, sandbox_settings
from ops.local.subprocesses import ProcessSpec, ProgramFailed
from ops.local.supervisor import Supervisor
from ops.services import open_cli_services

_TOKEN_S = 7 * 86_400
_PORTS = "FLOODGATE_HTTP__PORT, FLOODGATE_HTTP__ADMIN_PORT and FLOODGATE_SANDBOX__PORT"
_WORKERS = (
    ("writer", ("order_writer",)),
    ("payments", ("payment_worker",)),
    ("shipments", ("fulfilment_worker",)),
    ("keeper", ("release_worker", "sale_sync", "observer", "auditor")),
)


async def up(data_dir: Path | None, with_demo: bool) -> None:
    """Run until SIGINT or SIGTERM. Raises `NotReady` or `SettingsError` with what is in the way."""
    if data_dir is not None:
        os.environ["FLOODGATE_DATA_DIR"] = str(data_dir.absolute())
    home = load().data_dir
    stop = _stop_event()
    with _only_one(home):
        servers_file(home).unlink(missing_ok=True)
        settings = _with_signing_key(home)
        _check_ports(settings)
        supervisor = Supervisor(on_event=lambda line: out.print(f"  {escape(line)}"), on_end=_ended)
        try:
            await _until(stop, _start(supervisor, settings, with_demo))
            if not stop.is_set():
                _welcome(load(), with_demo, _made_up(settings))
                await stop.wait()
            out.print("stopping")
        except ProgramFailed as error:
            raise NotReady(str(error)) from None
        finally:
            await supervisor.stop()
            servers_file(home).unlink(missing_ok=True)
        out.print("stopped; the data is kept")


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Work, unless it is time to stop before it is done."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        await cancel_and_wait(task)
        return
    task.result()


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Two supervisors on one directory would fight over its servers."""
    try:
        (home / "run").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{home} cannot be used ({error.strerror}): set FLOODGATE_DATA_DIR") from None
    with (home / "run" / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise NotReady(f"it runs already with the data in {home} (process {lock.read().strip()})") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _with_signing_key(home: Path) -> Settings:
    """The settings; the first time on a machine with a key to sign tokens with, unless they name one."""
    settings = load()
    if settings.auth.keys:
        return settings
    file = local_file(home)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        made.write(
            "# Made by `floodgate up` for this machine. Tokens are signed with this key: keep it to yourself.\n"
            f'[[auth.keys]]\nkid = "local-{secrets.token_hex(4)}"\nsecret = "{secrets.token_hex(32)}"\n'
        )
    return load()


def _check_ports(settings: Settings) -> None:
    """Gateways share their port, so a second shop would quietly share it too: look before."""
    http = settings.http
    ports = {(http.host, http.port), (http.admin_host, http.admin_port)}
    if _sandbox(settings) is not None:
        ports.add(("127.0.0.1", settings.sandbox.port))
    for host, port in ports:
        if port == 0:
            raise SettingsError(f"`floodgate up` needs ports: set {_PORTS}")
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise NotReady(
                    f"{host}:{port} cannot be used ({error.strerror}): stop what uses it, or set {_PORTS}"
                ) from None


async def _start(supervisor: Supervisor, settings: Settings, with_demo: bool) -> None:
    home = settings.data_dir
    redis_url, database_url = await _start_servers(supervisor, settings)
    metrics_dir = home / "run" / "metrics"
    shutil.rmtree(metrics_dir, ignore_errors=True)
    metrics_dir.mkdir(parents=True)
    metrics.enable_multiprocess(metrics_dir)
    sandbox = _sandbox(settings)
    _write_servers(home, redis_url, database_url, sandbox_settings(settings, home) if sandbox else "")
    connection = await connect(database_url, name="migrate", timeout_s=600)
    try:
        await migrate(connection)
    finally:
        await connection.close()
    if with_demo:
        async with open_cli_services(load()) as shop:
            await demo_sales.make_demo(shop)
    env = {"REDIS_URL": redis_url, "DATABASE_URL": database_url, "FLOODGATE_METRICS_DIR": str(metrics_dir)}
    if sandbox is not None:
        await supervisor.start([sandbox])
    processes = settings.http.processes or os.cpu_count() or 1
    programs = [_python(settings, name, ["workers", *names, "--instance", name], env) for name, names in _WORKERS]
    programs += [_gateway(settings, number, env) for number in range(1, processes + 1)]
    await supervisor.start(programs)


async def _start_servers(supervisor: Supervisor, settings: Settings) -> tuple[str, str]:
    """Start what the settings do not name; gives the URLs of Redis and Postgres."""
    home = settings.data_dir
    await embedded_servers.end_leftovers(home)
    own = []
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    if redis_url is None:
        redis = embedded_servers.redis_server(home)
        redis_url = redis.url
        own.append(redis.program)
    database_url = settings.database_url.get_secret_value() if settings.database_url else None
    if database_url is None:
        postgres = await asyncio.to_thread(embedded_servers.postgres_server, home)
        database_url = postgres.url
        own.append(postgres.program)
    for program in own:
        out.print(f"  starting {program.name}: {program.argv[0]}", highlight=False, soft_wrap=True)
    await supervisor.start(own)
    return redis_url, database_url


def _write_servers(home: Path, redis_url: str, database_url: str, made_up: str) -> None:
    """Lets commands in other terminals find the servers, and the sandbox's providers and carriers where there are."""
    file = servers_file(home)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as made:
        made.write(f'redis_url = "{redis_url}"\ndatabase_url = "{database_url}"\n{made_up}')


def _sandbox(settings: Settings) -> ProcessSpec | None:
    """Made-up payment providers and carriers, unless the shop has agreed with real ones of both."""
    return sandbox_program(settings) if _made_up(settings) else None


def _made_up(settings: Settings) -> list[str]:
    """What of the shop is made up, for whom it is started."""
    page, hour_s = f"http://127.0.0.1:{settings.sandbox.port}", 3_600 / settings.sandbox.time_factor
    lines = [f"Payments: made up; pay and refuse at {page}"] if lacks_providers(settings) else []
    if lacks_carriers(settings):
        lines.append(f"Parcels: made up; an hour of theirs takes {hour_s:g} s, move and lose them at {page}")
    return lines


def _python(settings: Settings, name: str, module: list[str], env: dict[str, str]) -> ProcessSpec:
    logs = settings.data_dir / "logs"
    return ProcessSpec(
        name,
        [sys.executable, "-m", *module],
        logs / f"{name}.out",
        env={**env, "FLOODGATE_LOG__FILE": str(logs / f"{name}.log")},
        stop_timeout_s=settings.limits.graceful_stop_s + 5,
    )


def _gateway(settings: Settings, number: int, env: dict[str, str]) -> ProcessSpec:
    program = _python(settings, f"gateway-{number}", ["gateway"], env)
    url = f"http://{settings.http.host}:{settings.http.port}/health/ready"

    async def ready() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client, client.get(url) as answer:
            answer.raise_for_status()

    return ProcessSpec(
        program.name, program.argv, program.log, program.env, stop_timeout_s=program.stop_timeout_s, ready=ready
    )


def _ended(pid: int) -> None:
    metrics.drop_process(pid)


def _welcome(settings: Settings, with_demo: bool, made_up: list[str]) -> None:
    http, clock = settings.http, SystemClock()
    base, admin = f"http://{http.host}:{http.port}", f"http://{http.admin_host}:{http.admin_port}"
    user = sign_token(settings.auth, clock, "demo-shopper", "floodgate", (), _TOKEN_S)
    staff = sign_token(settings.auth, clock, "demo-admin", "floodgate-admin", ("operator",), _TOKEN_S)
    lines = [
        "",
        f"The shop is open at {base}  (API: {base}/docs)",
        f"Admin and metrics: {admin}  (API: {admin}/docs, {admin}/metrics)",
        *made_up,
        f"Data: {settings.data_dir}   A 202 means: {settings.durability}",
        "",
        f"User token:  {user}",
        f"Admin token: {staff}",
    ]
    if with_demo:
        lines += [
            "",
            "Place an order:",
            "",
            f"curl -i {base}/v1/orders -H 'Authorization: Bearer {user}' -H 'Content-Type: application/json' "
            f"-H \"Idempotency-Key: $(date +%s%N)\" -d '{demo_sales.sample_order()}'",
        ]
    lines += ["", "Ctrl-C stops everything and keeps the data."]
    # Plain, so that what is pasted has no line breaks that a terminal's width has put in.
    print("\n".join(lines), flush=True)
