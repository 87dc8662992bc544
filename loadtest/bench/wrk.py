"""The load: wrk, which costs little itself, with a pool of users' tokens and a new idempotency key a request."""

from __future__ import annotations

import asyncio
import shutil
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
    process = await asyncio.create_subprocess_exec(
        program,
        *("-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "10s"),
        *("-s", str(_SCRIPT), url, "--", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds + _GRACE_S)
    except TimeoutError:
        process.kill()
        raise LoadFailed(f"wrk did not end {_GRACE_S:g} s after its time") from None
    last = output.strip().rpartition(b"\n")[2]
    try:
        return msgspec.json.decode(last, type=Load)
    except msgspec.DecodeError:
        raise LoadFailed(output.decode(errors="replace")[-2_000:]) from None
