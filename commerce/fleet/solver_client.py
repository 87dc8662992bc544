"""Runs the solver in a process of its own.

Nothing else waits for the search, and it can be killed at any time. The process receives the request and none of the
settings, so no secret either.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import msgspec

from commerce.fleet.errors import SolverFailed
from commerce.fleet.routing_problem import Solution, SolveRequest, SolverMessage
from commerce.kernel.optional import require_extra

GRACE_S = 30.0
"""Time beyond the limit for the process to start, to read, and to repair its routes."""
_MAX_LINE_BYTES = 1 << 24
_INHERITED_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")


async def solve_in_subprocess(
    request: SolveRequest, report_progress: Callable[[float], None], grace_s: float = GRACE_S
) -> Solution:
    """Solve a routing problem in another process.

    The process is killed when its time limit and `grace_s` have passed, and when this call is cancelled. Raises
    `SolverFailed`, and `NotReady` in an installation without the extra `fleet`.
    """
    require_extra("plan routes", "fleet", "pyvrp")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "commerce.fleet.solver_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        env={name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ},
    )
    try:
        async with asyncio.timeout(request.time_limit_s + grace_s):
            return await _communicate(process, msgspec.json.encode(request), report_progress)
    except TimeoutError:
        raise SolverFailed(
            f"the solver was killed {grace_s:.0f} s after its time limit of {request.time_limit_s:.0f} s; plan fewer "
            "stops, or give it more time"
        ) from None
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise SolverFailed(f"cannot read the answer of the solver ({type(error).__name__})") from error
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _communicate(
    process: asyncio.subprocess.Process, request: bytes, report_progress: Callable[[float], None]
) -> Solution:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(request)
    process.stdin.close()
    async for line in process.stdout:
        message = msgspec.json.decode(line, type=SolverMessage)
        if message.solution is not None:
            return message.solution
        report_progress(message.share)
    status = await process.wait()
    raise SolverFailed(f"the solver ended with status {status}; the reason is on its standard error")
