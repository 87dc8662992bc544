"""Runs the search in a process of its own, so that nothing else waits for it and it can be ended at any time.

It gets the task and none of the shop's settings, so no secret either.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import msgspec

from commerce.fleet.errors import SolverFailed
from commerce.fleet.routing_problem import Solution, SolveRequest, SolverMessage

GRACE_S = 30.0
"""Time for the process to start, read, and put in order what it has found."""
_LINE_BYTES = 1 << 24
_PASSED_ON = ("PATH", "LANG", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")


async def solve_in_subprocess(
    task: SolveRequest, progress: Callable[[float], None], grace_s: float = GRACE_S
) -> Solution:
    """Search in another process. It is killed when its time and `grace_s` are over, or when this is cancelled.

    Raises `SolverFailed`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "commerce.fleet.solver_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        async with asyncio.timeout(task.seconds + grace_s):
            return await _talk(process, msgspec.json.encode(task), progress)
    except TimeoutError:
        raise SolverFailed(
            f"the process that plans was ended: it took {grace_s:.0f} s longer than the {task.seconds:.0f} s it had; "
            "plan fewer stops, or give it more time"
        ) from None
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise SolverFailed(f"the process that plans says what cannot be read ({type(error).__name__})") from error
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _talk(process: asyncio.subprocess.Process, task: bytes, progress: Callable[[float], None]) -> Solution:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(task)
    process.stdin.close()
    async for line in process.stdout:
        said = msgspec.json.decode(line, type=SolverMessage)
        if said.solution is not None:
            return said.solution
        progress(said.share)
    status = await process.wait()
    raise SolverFailed(f"the process that plans ended with status {status}; why is on its standard error")
