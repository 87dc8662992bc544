"""A shop run by `floodgate up`, whose processes can be found and killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import aiohttp

from config.settings import Settings, load

FLOODGATE = Path(sys.executable).with_name("floodgate")
GATEWAYS = 2
_PROCESSES_BY_ROLE = {
    **dict.fromkeys(("writer", "payments", "fulfilment", "sandbox", "maintenance", "redis", "postgres"), 1),
    "gateway": GATEWAYS,
}
ROLES = {
    "writer": b"workers\0order_writer\0",
    "payments": b"workers\0payment_worker\0",
    "fulfilment": b"workers\0fulfilment_worker\0",
    "sandbox": b"-m\0ops.sandbox\0",
    "maintenance": b"workers\0release_worker\0",
    "gateway": b"-m\0gateway\0",
    "redis": b"-server",  # redis-server or valkey-server
    "postgres": b"postgres\0-D\0",
}
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp
_START_TIMEOUT_S, _RESTART_TIMEOUT_S = 90.0, 60.0


def free_server_port() -> int:
    """Find a free port outside the range of ephemeral ports.

    Clients connect while no gateway listens. On an ephemeral port such a client could connect to itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(first, 10_001))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class LocalStack:
    """The processes of one `floodgate up`. `env` is the environment of it and of every command."""

    home: Path
    port: int = field(default_factory=free_server_port)
    admin_port: int = field(default_factory=free_server_port)
    sandbox_port: int = field(default_factory=free_server_port)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        other_settings = ("FLOODGATE_", "REDIS_URL", "DATABASE_URL")
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(other_settings)},
            "FLOODGATE_DATA_DIR": str(self.home),
            "FLOODGATE_HTTP__PORT": str(self.port),
            "FLOODGATE_HTTP__ADMIN_PORT": str(self.admin_port),
            "FLOODGATE_SANDBOX__PORT": str(self.sandbox_port),
            "FLOODGATE_HTTP__PROCESSES": str(GATEWAYS),
            **self.env,
        }
        self._log = self.home / "up.out"
        self._process: asyncio.subprocess.Process | None = None

    def settings(self) -> Settings:
        """Load the settings of the shop, whose data directory the environment of the test names."""
        return load()

    async def shows_sale(self, sale_id: str) -> bool:
        """Tell whether the gateways, which read sales twice a second, show one.

        Each of so many connections leads to any gateway.
        """
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", connector=connector) as client:
            for _ in range(16):
                async with client.get(f"/v1/sales/{sale_id}") as response:
                    if response.status != 200:
                        return False
        return True

    async def start(self) -> None:
        """Start, or restart on the same data, and wait until the shop is open."""
        self._log.write_bytes(b"")
        with self._log.open("ab") as log, self._log.with_suffix(".err").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(str(FLOODGATE), "up", "--no-demo"),
                env=self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        await self._wait_for_output("Ctrl-C stops", 1, _START_TIMEOUT_S)

    async def _wait_for_output(self, text: str, times: int, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.count_in_output(text) < times:
            assert self._process is not None
            assert self._process.returncode is None, f"floodgate up ended:\n{self.output_tail()}"
            assert asyncio.get_running_loop().time() < deadline, f"no {text!r} in {timeout_s} s:\n{self.output_tail()}"
            await asyncio.sleep(0.02)

    def output_tail(self) -> str:
        """Return the end of the output of `floodgate up`."""
        return self._log.read_text()[-4_000:]

    def count_in_output(self, text: str) -> int:
        """Count a text in the output since the last start."""
        return self._log.read_text().count(text)

    def pids(self, role: str) -> list[int]:
        """Return the ids of the running processes of a role."""
        assert self._process is not None
        return [pid for pid in _list_children(self._process.pid) if ROLES[role] in _read_command_line(pid)]

    async def kill(self, rng: random.Random, *roles: str) -> list[int]:
        """Kill one process of each role at once and wait for replacements. Returns the killed ids.

        The message of the supervisor is not enough: it counts a gateway as ready while another one serves.
        """
        await self._wait_for_all_processes(set())
        victims = [rng.choice(self.pids(role)) for role in roles]
        restarts = self.count_in_output("runs again")
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await self._wait_for_output("runs again", restarts + len(victims), _RESTART_TIMEOUT_S)
        await self._wait_for_all_processes(set(victims))
        return victims

    async def _wait_for_all_processes(self, killed: set[int]) -> None:
        """Wait until all roles run without the killed processes, and all gateways listen."""
        deadline = asyncio.get_running_loop().time() + _RESTART_TIMEOUT_S
        while True:
            running = {role: self.pids(role) for role in _PROCESSES_BY_ROLE}
            counts = {role: len(pids) for role, pids in running.items()}
            is_replaced = killed.isdisjoint(chain(*running.values()))
            if counts == _PROCESSES_BY_ROLE and is_replaced and self._count_listeners() == GATEWAYS:
                return
            assert asyncio.get_running_loop().time() < deadline, f"{running}, killed {killed}:\n{self.output_tail()}"
            await asyncio.sleep(0.02)

    def _count_listeners(self) -> int:
        """Count listening sockets. The gateways share the port, and each has its own socket."""
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(socket[1].endswith(f":{self.port:04X}") and socket[3] == _LISTEN for socket in sockets)

    async def kill_everything(self) -> None:
        """Kill all processes of this shop, the supervisor last.

        So it has no time to stop the others gracefully."""
        assert self._process is not None
        pids = [*_list_descendants(self._process.pid), self._process.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        deadline = asyncio.get_running_loop().time() + _RESTART_TIMEOUT_S
        while survivors := {pid for pid, _ in _list_with_parents()}.intersection(pids):
            assert asyncio.get_running_loop().time() < deadline, f"running after SIGKILL: {survivors}"
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Send SIGINT, as Ctrl-C does, and kill all processes if `floodgate up` does not end."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), _RESTART_TIMEOUT_S)
        except TimeoutError:
            await self.kill_everything()
            raise

    async def run_command(self, *arguments: str) -> tuple[int, str]:
        """Run a `floodgate` command. Returns its exit status and standard output."""
        process = await asyncio.create_subprocess_exec(
            *(str(FLOODGATE), *arguments), env=self.env, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


def _read_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _list_children(parent: int) -> list[int]:
    return [pid for pid, parent_pid in _list_with_parents() if parent_pid == parent]


def _list_descendants(ancestor: int) -> list[int]:
    """Return the ids of all descendants, the youngest generation last."""
    processes = list(_list_with_parents())
    pids = [ancestor]
    for pid in pids:
        pids += [child for child, parent in processes if parent == pid]
    return pids[1:]


def _list_with_parents() -> Iterator[tuple[int, int]]:
    """Yield the id and the parent's id of each process that is not a zombie."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with suppress(OSError):
                state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(directory.name), int(parent)
