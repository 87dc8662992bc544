"""The load: wrk, which costs little itself, with a pool of users' tokens and a new idempotency key a request."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

_SCRIPT = Path(__file__).with_name("load.lua")
_GRACE_S = 30.0


class Load(msgspec.Struct, frozen=True):
    """What wrk saw. `refused`: answered with 400 or more; `failed`: no answer. Times in seconds."""

    seconds: float
    requests: int
    refused: int
    failed: int
    p50: float
    p99: float


class LoadFailed(Exception):
    """wrk could not do its work. The message is what it said."""


async def wrk(url: str, connections: int, seconds: float, *arguments: str | float | Path) -> Load:
    """Load a URL with orders; `arguments` are those of `load.lua`, without any it is loaded with plain GETs."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadFailed("wrk is not installed: on Debian, `apt-get install wrk`")
    command = (
        *(program, "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "10s"),
        *("-s", str(_SCRIPT), url, "--", *map(str, arguments)),
    )
    output = await _output(command, seconds + _GRACE_S)
    try:
        return msgspec.json.decode(output.strip().rpartition(b"\n")[2], type=Load)
    except msgspec.DecodeError:
        raise LoadFailed(output.decode(errors="replace")[-2_000:]) from None


async def _output(command: Sequence[str], timeout_s: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        return (await asyncio.wait_for(process.communicate(), timeout_s))[0]
    except TimeoutError:
        process.kill()
        raise LoadFailed(f"it did not end {_GRACE_S:g} s after its time: {' '.join(command)}") from None
