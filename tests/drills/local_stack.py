"""A shop as `floodgate up` runs it: servers, gateways and workers as processes that can be found and killed."""

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

from config.settings import Settings, load

FLOODGATE = Path(sys.executable).with_name("floodgate")
GATEWAYS = 2
_PARTS = {
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
    "redis": b"redis-server",
    "postgres": b"postgres\0-D\0",
}
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp
_START_S, _RESTART_S = 90.0, 60.0


def free_server_port() -> int:
    """A free port outside the range the system takes clients' ports from.

    Clients knock while nobody listens; on a port of that range one of them would now and then connect to itself.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(first, 10_001))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class LocalStack:
    """`env` is that of `floodgate up` and of every command."""

    home: Path
    port: int = field(default_factory=free_server_port)
    admin_port: int = field(default_factory=free_server_port)
    sandbox_port: int = field(default_factory=free_server_port)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        strange = ("FLOODGATE_", "REDIS_URL", "DATABASE_URL")
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(strange)},
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
        """Those of the running shop; the test's own environment names its data directory."""
        return load()

    async def start(self) -> None:
        """Start, or start again on the same data, and wait until it says that the shop is open."""
        self._log.write_bytes(b"")
        with self._log.open("ab") as log, self._log.with_suffix(".err").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(str(FLOODGATE), "up", "--no-demo"),
                env=self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        await self._until_said("Ctrl-C stops", 1, _START_S)

    async def _until_said(self, text: str, times: int, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.times_said(text) < times:
            assert self._process is not None
            assert self._process.returncode is None, f"it ended:\n{self.said()}"
            assert asyncio.get_running_loop().time() < deadline, f"no {text!r} in {timeout_s} s:\n{self.said()}"
            await asyncio.sleep(0.02)

    def said(self) -> str:
        """The end of what it printed."""
        return self._log.read_text()[-4_000:]

    def times_said(self, text: str) -> int:
        """How often it has printed this since it was started."""
        return self._log.read_text().count(text)

    def pids(self, role: str) -> list[int]:
        """The processes of a role that run now."""
        assert self._process is not None
        return [pid for pid in _children(self._process.pid) if ROLES[role] in _command(pid)]

    async def kill(self, rng: random.Random, *roles: str) -> list[int]:
        """Kill one process of each role at once, and wait until others run in their place; gives the pids of the dead.

        That the supervisor says so is not enough: a gateway that starts while another one serves counts as ready.
        """
        await self._until_whole(set())
        victims = [rng.choice(self.pids(role)) for role in roles]
        restarts = self.times_said("runs again")
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        await self._until_said("runs again", restarts + len(victims), _RESTART_S)
        await self._until_whole(set(victims))
        return victims

    async def _until_whole(self, dead: set[int]) -> None:
        """Wait until every part runs, none of them as a process that is dead, and all gateways listen."""
        deadline = asyncio.get_running_loop().time() + _RESTART_S
        while True:
            now = {role: self.pids(role) for role in _PARTS}
            ours = {role: len(pids) for role, pids in now.items()} == _PARTS and not dead.intersection(
                chain(*now.values())
            )
            if ours and self._listeners() == GATEWAYS:
                return
            assert asyncio.get_running_loop().time() < deadline, f"{now}, {dead} are dead:\n{self.said()}"
            await asyncio.sleep(0.02)

    def _listeners(self) -> int:
        """The gateways share the port, and each has a listening socket of its own."""
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(socket[1].endswith(f":{self.port:04X}") and socket[3] == _LISTEN for socket in sockets)

    async def kill_everything(self) -> None:
        """Kill all processes of this shop; the supervisor last, so that it has no time to end the others in order."""
        assert self._process is not None
        pids = [*_descendants(self._process.pid), self._process.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        deadline = asyncio.get_running_loop().time() + _RESTART_S
        while gone_on := {pid for pid, _ in _parents()}.intersection(pids):
            assert asyncio.get_running_loop().time() < deadline, f"not even SIGKILL ends {gone_on}"
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Ctrl-C; what does not end then is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), _RESTART_S)
        except TimeoutError:
            await self.kill_everything()
            raise

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run a `floodgate` command; gives its status and what it wrote to standard output."""
        process = await asyncio.create_subprocess_exec(
            *(str(FLOODGATE), *arguments), env=self.env, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _children(parent: int) -> list[int]:
    return [pid for pid, of in _parents() if of == parent]


def _descendants(ancestor: int) -> list[int]:
    """The youngest generation last."""
    parents = list(_parents())
    found = [ancestor]
    for known in found:
        found += [pid for pid, parent in parents if parent == known]
    return found[1:]


def _parents() -> Iterator[tuple[int, int]]:
    """Each process that is not a zombie, with its parent."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(place.name), int(parent)
