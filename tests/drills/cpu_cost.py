"""CPU time of the processes of a drill, from /proc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadtest.bench.machine import read_cpu_seconds, read_family_cpu_seconds
from tests.drills.local_stack import LocalStack


def cpu_seconds_by_role(stack: LocalStack, roles: Sequence[str]) -> dict[str, float]:
    """Return the CPU seconds used so far, by role. Postgres includes running and ended children."""
    used_s = {role: sum(map(read_cpu_seconds, stack.pids(role))) for role in roles}
    [postgres] = stack.pids("postgres")
    return {**used_s, "postgres": read_family_cpu_seconds(postgres)}


def format_cpu_per_order(before: Mapping[str, float], after: Mapping[str, float], orders: int) -> str:
    """Format the CPU milliseconds per order, by role."""
    return ", ".join(f"{role} {(after[role] - before[role]) / orders * 1e3:.2f}" for role in before)
