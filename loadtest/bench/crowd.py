"""Crowds of customers beside a measurement: patient, impatient, or with prepared requests."""

from __future__ import annotations

import asyncio
import resource
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from loadtest.bench.crowd_process import CrowdOptions, CrowdSample
from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.wrk import LoadFailed

_CONNECT_TIMEOUT_S, _SAMPLE_TIMEOUT_S, _POLL_INTERVAL_S = 30.0, 30.0, 0.1
_CONNECTED_SHARE = 0.99
_OTHER_FILES = 1_000
_LINE_BYTES = 1 << 26


class Crowd:
    """A running crowd."""

    def __init__(self, process: asyncio.subprocess.Process, connections: int) -> None:
        self._process = process
        self._connections = connections

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_until_connected(self) -> None:
        """Wait until nearly all are connected, or for 30 s: a server that is overwhelmed accepts no more."""
        deadline = asyncio.get_running_loop().time() + _CONNECT_TIMEOUT_S
        while (await self.take_sample()).connected < _CONNECTED_SHARE * self._connections:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def take_sample(self) -> CrowdSample:
        """Return what has happened since the last sample."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _SAMPLE_TIMEOUT_S)
        except TimeoutError:
            raise LoadFailed(f"the crowd gave no figures within {_SAMPLE_TIMEOUT_S:g} s") from None
        if not line:
            raise LoadFailed("the crowd ended before its time; its error stands above")
        return msgspec.json.decode(line, type=CrowdSample)

    async def leave(self) -> None:
        """Close all connections at once."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def open_crowd(
    environment: BenchEnvironment,
    url: str,
    connections: int,
    *,
    users: Path | None = None,
    order: Path | None = None,
    requests: Sequence[str] = (),
    is_once: bool = False,
    is_patient: bool = False,
    pause_ms: float = 0,
    sources: Sequence[str] = ("127.0.0.1",),
    users_per_connection: int = 1,
    rotates_users: bool = False,
    new_connection_share: float = 0,
    first_user: int = 0,
    niceness: int = 0,
    keeps_answers: bool = False,
) -> AsyncIterator[Crowd]:
    """Run a crowd at a server: see `CrowdOptions`. It may still be connecting when the block begins."""
    run = secrets.token_hex(4)
    file = environment.home / f"requests-{run}.json"
    if requests:
        file.write_bytes(msgspec.json.encode(requests))
    options = CrowdOptions(
        port=urlsplit(url).port or 80,
        connections=connections,
        users=str(users or environment.tokens),
        order=str(order or environment.order),
        run=run,
        requests=str(file) if requests else None,
        is_once=is_once,
        is_patient=is_patient,
        pause_ms=pause_ms,
        sources=tuple(sources),
        users_per_connection=users_per_connection,
        rotates_users=rotates_users,
        new_connection_share=new_connection_share,
        first_user=first_user,
        niceness=niceness,
        keeps_answers=keeps_answers,
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest.bench.crowd_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    crowd = Crowd(process, connections)
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(options) + b"\n")
        yield crowd
    finally:
        await crowd.leave()


def raise_file_limit() -> None:
    """Let this process and those that it starts open as many files as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def count_possible_connections() -> int:
    """Return the connections that one process can hold: each is a file."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (1 << 30 if hard == resource.RLIM_INFINITY else hard) - _OTHER_FILES


def list_addresses(first: int, count: int) -> list[str]:
    """Return addresses of this machine by which customers differ: 127.0.1.`first` and those after it."""
    return [f"127.0.1.{number}" for number in range(first, first + count)]
