"""JSON logs, one object per line: time, level, logger, message, and the `extra` of the call."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pythonjsonlogger.orjson import OrjsonFormatter

_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"}
_BACKUP_FILES = 3


def configure_logging(level: str, file: Path | None, file_bytes: int, process: str) -> None:
    """Log to standard error, or to a file that is rotated at `file_bytes`. Every line contains `process`."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=file_bytes, backupCount=_BACKUP_FILES, encoding="utf-8")
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
