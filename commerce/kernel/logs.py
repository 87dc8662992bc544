"""Logs are JSON, one object a line: time, level, logger, message, and what the call gave as `extra`."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pythonjsonlogger.orjson import OrjsonFormatter

_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"}
_FILES_KEPT = 3


def configure_logging(level: str, file: Path | None, file_bytes: int, process: str) -> None:
    """Send everything to standard error, or to a file that is rotated. `process` is in every line."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=file_bytes, backupCount=_FILES_KEPT, encoding="utf-8")
    handler.setFormatter(
        OrjsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            rename_fields=_FIELDS,
            static_fields={"process": process},
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
