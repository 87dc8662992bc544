"""Reading out metrics: of this process, or of all processes of a machine that share `PROMETHEUS_MULTIPROC_DIR`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def enable_multiprocess(directory: Path | None) -> None:
    """Count into files in that directory, together with other processes. Call it before anything counts.

    prometheus-client looks at the variable when it is imported, so this sets it and checks that it is not too late.
    """
    if directory is None:
        return
    if "prometheus_client" in sys.modules:
        if os.environ.get(_VARIABLE) == str(directory):
            return
        raise RuntimeError("prometheus_client was imported before the metrics' directory was known")
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[_VARIABLE] = str(directory)
    _forget_dead(directory, os.getpid())  # what has this process's number is of one before it


def render() -> bytes:
    """Everything in Prometheus's text format."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, multiprocess  # noqa: PLC0415  # see share

    if _VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    _forget_dead(Path(os.environ[_VARIABLE]), None)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_dead(directory: Path, besides: int | None) -> None:
    """Drop the gauges of processes that are no more, however they ended, and of one besides.

    A gauge that nobody sets any more would look as if all were well for ever.
    """
    for file in directory.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and (int(pid) == besides or not _runs(int(pid))):
            file.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def drop_process(pid: int) -> None:
    """Drop the gauges of a process that has ended; what it counted stays."""
    if _VARIABLE in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415  # see share

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
