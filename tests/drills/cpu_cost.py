"""What a drill costs the machine: processor time by part, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtest.bench.machine import list_children, read_cpu_seconds
from tests.drills.local_stack import LocalStack


def cpu_seconds_by_role(stack: LocalStack, roles: Sequence[str]) -> dict[str, float]:
    """Seconds so far, by part; Postgres with all processes that have served its connections."""
    used = {role: sum(map(read_cpu_seconds, stack.pids(role))) for role in roles}
    [postgres] = stack.pids("postgres")
    gone = sum(map(int, Path(f"/proc/{postgres}/stat").read_text().rpartition(")")[2].split()[13:15]))
    alive = sum(map(read_cpu_seconds, [postgres, *list_children(postgres)]))
    return {**used, "postgres": alive + gone / os.sysconf("SC_CLK_TCK")}


def format_cpu_per_order(before: Mapping[str, float], after: Mapping[str, float], orders: int) -> str:
    """Milliseconds an order, by part."""
    return ", ".join(f"{role} {(after[role] - before[role]) / orders * 1e3:.2f}" for role in before)
