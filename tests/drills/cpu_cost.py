"""CPU time of the processes of a drill, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.bench.machine import list_children, read_cpu_seconds
from tests.drills.local_stack import LocalStack


def cpu_seconds_by_role(stack: LocalStack, roles: Sequence[str]) -> dict[str, float]:
    """Return the CPU seconds used so far, by role. Postgres includes running and ended children."""
    used_s = {role: sum(map(read_cpu_seconds, stack.pids(role))) for role in roles}
    [postgres] = stack.pids("postgres")
    ended_ticks = sum(map(int, Path(f"/proc/{postgres}/stat").read_text().rpartition(")")[2].split()[13:15]))
    running_s = sum(map(read_cpu_seconds, [postgres, *list_children(postgres)]))
    return {**used_s, "postgres": running_s + ended_ticks / os.sysconf("SC_CLK_TCK")}


def format_cpu_per_order(before: Mapping[str, float], after: Mapping[str, float], orders: int) -> str:
    """Format the CPU milliseconds per order, by role."""
    return ", ".join(f"{role} {(after[role] - before[role]) / orders * 1e3:.2f}" for role in before)
