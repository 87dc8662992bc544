"""Reading out metrics: of this process, or of all processes of a machine that share `PROMETHEUS_MULTIPROC_DIR`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share(directory: Path | None) -> None:
    """Count into files in that directory, together with other processes. Call it before anything counts.

    prometheus-client looks at the variable when it is imported, so this sets it and checks that it is not too late.
    """
    if directory is None or os.environ.get(_VARIABLE) == str(directory):
        return
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before the metrics' directory was known")
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[_VARIABLE] = str(directory)


def exposition() -> bytes:
    """Everything in Prometheus's text format."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess  # noqa: PLC0415  # see share

    if _VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget(pid: int) -> None:
    """Drop the gauges of a process that has ended; what it counted stays."""
    if _VARIABLE in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415  # see share

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
