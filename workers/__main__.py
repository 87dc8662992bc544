"""A worker process: `python -m workers NAME...`, or `floodgate worker NAME...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import uvloop

from commerce.kernel import logs, metrics
from commerce.kernel.gc_tuning import paused_collector
from commerce.kernel.outages import exit_on_failed_start
from commerce.kernel.standard_streams import open_standard_streams
from config.settings import Settings, SettingsError, load
from workers.cpu_priority import lower_cpu_priority
from workers.registry import NAMES, load_worker

_AT_NORMAL_PRIORITY = frozenset({"order_writer", "product_index"})
"""Customers wait for them."""


def main(names: Sequence[str], instance: str = "main", settings: Settings | None = None) -> None:
    """Run workers in this process until it gets a signal.

    Raises `SettingsError` or `NotReady` if they cannot start."""
    settings = settings or load()
    logs.configure_logging(settings.log.level, settings.log.file, settings.log.file_bytes, " ".join(names))
    if _AT_NORMAL_PRIORITY.isdisjoint(names):
        lower_cpu_priority()
    metrics.enable_multiprocess(settings.metrics_dir)
    with paused_collector():
        from workers.runtime import run  # noqa: PLC0415  # metrics may be created only now

        workers = [(name, load_worker(name)) for name in names]
    uvloop.run(run(settings, workers, instance))


if __name__ == "__main__":
    open_standard_streams()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES)
    parser.add_argument("--instance", default="main")
    arguments = parser.parse_args()
    with exit_on_failed_start(SettingsError):
        main(arguments.names, arguments.instance)
