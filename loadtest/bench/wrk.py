"""Load by wrk, which costs little itself: tokens of many users, and a new idempotency key per request."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

_SCRIPT = Path(__file__).with_name("load.lua")
READS = Path(__file__).with_name("reads.lua")
_TIMEOUT_GRACE_S = 30.0


class LoadResult(msgspec.Struct, frozen=True):
    """Result of wrk. `refused`: answered with 400 or more; `failed`: no answer. Times in seconds."""

    seconds: float
    requests: int
    refused: int
    failed: int
    p50: float
    p99: float


class LoadFailed(Exception):
    """A load could not be run or was refused. The message says why."""


async def run_wrk(
    url: str, connections: int, seconds: float, *arguments: str | float | Path, script: Path = _SCRIPT
) -> LoadResult:
    """Load a URL with orders, or with plain GETs if there are no `arguments` for the script.

    Raises `LoadFailed` if wrk cannot be run.
    """
    program = shutil.which("wrk")
    if program is None:
        raise LoadFailed("cannot run the load: wrk is not installed; on Debian, `apt-get install wrk`")
    command = (
        *(program, "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--timeout", "10s"),
        *("-s", str(script), url, "--", *map(str, arguments)),
    )
    output = await _read_output(command, seconds + _TIMEOUT_GRACE_S)
    try:
        return msgspec.json.decode(output.strip().rpartition(b"\n")[2], type=LoadResult)
    except msgspec.DecodeError:
        raise LoadFailed(output.decode(errors="replace")[-2_000:]) from None


async def _read_output(command: Sequence[str], timeout_s: float) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        return (await asyncio.wait_for(process.communicate(), timeout_s))[0]
    except TimeoutError:
        process.kill()
        raise LoadFailed(f"wrk did not end {_TIMEOUT_GRACE_S:g} s after its time: {' '.join(command)}") from None
