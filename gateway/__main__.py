"""One gateway process: `python -m gateway`, or `floodgate gateway`."""

from __future__ import annotations

import gc
import resource

import uvloop

from commerce.kernel import logs, metrics
from config.settings import Settings, load

_SPARE_FILES = 1_000


def main(settings: Settings | None = None) -> None:
    """Run until told to stop. Raises `SettingsError` or `NotReady` if it cannot start."""
    settings = settings or load()
    logs.configure_logging(settings.log.level, settings.log.file, settings.log.file_bytes, "gateway")
    metrics.enable_multiprocess(settings.metrics_dir)
    _allow_files(settings.limits.connections + settings.limits.admin_connections + _SPARE_FILES)
    from gateway.app import serve  # noqa: PLC0415  # only now may metrics be made

    gc.freeze()  # what is loaded by now stays, so the collector need not look at it again
    uvloop.run(serve(settings))


def _allow_files(wanted: int) -> None:
    """A connection is an open file: raise the soft limit as far as is wanted and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    main()
