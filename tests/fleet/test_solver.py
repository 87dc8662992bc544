"""The solver process: time limits, errors, environment; services start without its libraries."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commerce.fleet import solver_client
from commerce.fleet.errors import SolverFailed
from commerce.fleet.routing_problem import RoutingProblem, RoutingVehicle, SolveRequest, Visit

LEGS = [[0, 10, 20], [10, 0, 10], [20, 10, 0]]
PROBLEM = RoutingProblem([RoutingVehicle(10, 0, 1_000)], [Visit(1, 0, 900, 5)] * 2, LEGS, LEGS)


def solver_pids() -> list[int]:
    """Return the ids of our solver processes."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [
        pid
        for pid in map(int, children)
        if b"commerce.fleet.solver_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def test_solver_runs_in_subprocess() -> None:
    shares: list[float] = []
    solution = await solver_client.solve_in_subprocess(SolveRequest(PROBLEM, 0.3, 1), shares.append)
    assert sorted(solution.sequences[0]) == [0, 1]
    assert shares[-1] == 1
    assert len(shares) > 1
    assert solver_pids() == []


async def test_solver_beyond_time_limit_is_killed() -> None:
    with pytest.raises(SolverFailed, match="was killed"):
        await solver_client.solve_in_subprocess(SolveRequest(PROBLEM, 0.05, 1), lambda share: None, grace_s=0)
    assert solver_pids() == []


async def test_solver_of_cancelled_caller_is_killed() -> None:
    has_progress = asyncio.Event()
    waiting = asyncio.create_task(
        solver_client.solve_in_subprocess(SolveRequest(PROBLEM, 60, 1), lambda share: has_progress.set())
    )
    await has_progress.wait()
    assert len(solver_pids()) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert solver_pids() == []


async def test_solver_that_crashes_raises_solver_failed(capfd: pytest.CaptureFixture[str]) -> None:
    broken = RoutingProblem(PROBLEM.vehicles, PROBLEM.visits, [[0]], [[0]])
    with pytest.raises(SolverFailed, match="status 1"):
        await solver_client.solve_in_subprocess(SolveRequest(broken, 0.1, 1), lambda share: None)
    assert "IndexError" in capfd.readouterr().err


def test_solver_environment_has_no_settings() -> None:
    assert not [name for name in solver_client._INHERITED_VARIABLES if "FLOODGATE" in name]


def test_services_import_without_optional_libraries() -> None:
    code = (
        "import sys, gateway.app, workers.runtime, ops.cli, commerce.fulfilment.printing\n"
        "import commerce.fleet.service, commerce.fleet.route_execution, commerce.fleet.route_map\n"
        "optional = 'pyvrp', 'matplotlib', 'numpy', 'reportlab', 'fontTools', 'segno'\n"
        "print([name for name in optional if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
