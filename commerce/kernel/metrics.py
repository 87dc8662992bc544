"""Metrics of this process, or of all processes of a machine that share `PROMETHEUS_MULTIPROC_DIR`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def enable_multiprocess(directory: Path | None) -> None:
    """Store metrics in files of that directory, which several processes share.

    Call it before the first metric is created: prometheus-client reads the environment variable on import. Raises
    `RuntimeError` if prometheus-client is imported already.
    """
    if directory is None:
        return
    if "prometheus_client" in sys.modules:
        if os.environ.get(_VARIABLE) == str(directory):
            return
        raise RuntimeError(
            "cannot share metrics: prometheus_client was imported too early; call enable_multiprocess first"
        )
    os.environ[_VARIABLE] = str(directory)
    _drop_dead(directory, os.getpid())  # a file with this process's id is of an earlier process
    from commerce.kernel import metrics_files  # noqa: PLC0415  # imports prometheus_client

    metrics_files.write_files_forever()


def render() -> bytes:
    """Return all metrics in Prometheus's text format."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest  # noqa: PLC0415  # see enable_multiprocess

    if _VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    from commerce.kernel import metrics_files  # noqa: PLC0415  # imports prometheus_client

    directory = Path(os.environ[_VARIABLE])
    metrics_files.write_files()
    _drop_dead(directory, None)
    registry = CollectorRegistry()
    registry.register(metrics_files.MetricsFilesCollector(directory))
    return generate_latest(registry)


def _drop_dead(directory: Path, own_pid: int | None) -> None:
    """Delete the gauges of processes that have ended, however they ended, and those of `own_pid`.

    A gauge that no process updates would keep its last value and hide a failure.
    """
    for file in directory.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and (int(pid) == own_pid or not _is_running(int(pid))):
            with suppress(OSError):  # not a file of ours, or on a disk that has failed: the reader tells
                file.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user; no process has such an id, so it is no file of ours
        return True
    return True


def drop_process(pid: int) -> None:
    """Delete the gauges of a process that has ended; its counters stay."""
    if _VARIABLE in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415  # see enable_multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
