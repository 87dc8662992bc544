"""One gateway process: `python -m gateway`, or `floodgate gateway`."""

from __future__ import annotations

import gc
import resource

import uvloop

from commerce.kernel import logs, metrics
from commerce.kernel.gc_tuning import paused_collector
from commerce.kernel.outages import exit_on_failed_start
from commerce.kernel.standard_streams import open_standard_streams
from config.settings import Settings, SettingsError, load

_MAX_OTHER_FILES = 1_000


def main(settings: Settings | None = None) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP. Raises `SettingsError` or `NotReady` if it cannot start."""
    settings = settings or load()
    logs.configure_logging(settings.log.level, settings.log.file, settings.log.file_bytes, "gateway")
    metrics.enable_multiprocess(settings.metrics_dir)
    _raise_file_limit(settings.limits.connections + settings.limits.admin_connections + _MAX_OTHER_FILES)
    with paused_collector():
        from gateway.app import serve  # noqa: PLC0415  # metrics may be created only now

    gc.freeze()  # everything loaded so far stays, so the collector need not examine it again
    uvloop.run(serve(settings))


def _raise_file_limit(files: int) -> None:
    """Raise the soft limit of open files, as far as the hard limit allows; every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


if __name__ == "__main__":
    open_standard_streams()
    with exit_on_failed_start(SettingsError):
        main()
