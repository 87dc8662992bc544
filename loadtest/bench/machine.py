"""Processor time of processes, and a description of the machine, from the operating system."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.compiled import order_path_form

_TICKS = os.sysconf("SC_CLK_TCK")


def read_cpu_parts(pid: int) -> tuple[float, float]:
    """Return user and system time of a process so far in seconds, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


def read_cpu_seconds(pid: int) -> float:
    """Return the sum of user and system time of a process so far."""
    return sum(read_cpu_parts(pid))


def list_children(pid: int) -> list[int]:
    """Return the pids of the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def read_family_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children so far, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = sum(map(int, fields[11:15])) / _TICKS
    for child in list_children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            total += read_cpu_seconds(child)
    return total


class CpuMeter:
    """Meter of the processor time of processes, by kind, since its creation.

    `read` returns that of a process so far, in seconds.
    """

    def __init__(self, processes: Mapping[str, Sequence[int]], read: Callable[[int], float] = read_cpu_seconds) -> None:
        self._processes = processes
        self._read_process = read
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {kind: sum(map(self._read_process, pids)) for kind, pids in self._processes.items()}

    def read_used(self) -> dict[str, float]:
        """Return seconds by kind of process."""
        now = self._read()
        return {kind: now[kind] - before for kind, before in self._before.items()}


def describe_machine() -> dict[str, str | int]:
    """Return what a reader needs to compare the figures with others."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cores": os.cpu_count() or 1,
        "processor": model,
        "python": platform.python_version(),
        "order_path": order_path_form(),
    }
