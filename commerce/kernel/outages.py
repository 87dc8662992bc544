"""Outages of Redis and Postgres, distinguished from bugs in logs and at the start of a process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from asyncpg import PostgresError

from commerce.kernel.errors import ProblemError
from commerce.kernel.postgres import (
    POSTGRES_UNAVAILABLE,
    POSTGRES_UNAVAILABLE_OR_BUSY,
    explain_unavailable,
    safe_error_text,
    strip_row_details,
)
from commerce.kernel.redis_client import REDIS_UNAVAILABLE

DATABASES_UNAVAILABLE = (*POSTGRES_UNAVAILABLE, *REDIS_UNAVAILABLE)


def is_outage(error: BaseException) -> bool:
    """Tell whether an error means that Postgres or Redis cannot be used now."""
    is_of_file = isinstance(error, OSError) and error.filename is not None  # a connection has none
    return not is_of_file and isinstance(error, (*POSTGRES_UNAVAILABLE_OR_BUSY, *REDIS_UNAVAILABLE))


def explain_defect(error: Exception) -> str:
    """Return a text for staff about an error that nobody has foreseen.

    It names the type. What an exception says may quote a key or a customer's data: only the log has that."""
    if isinstance(error, (PostgresError, ProblemError)):
        return safe_error_text(error)
    return f"{type(error).__name__}: a defect of the program; the worker's log has the traceback"


def log_failure(logger: logging.Logger, message: str, error: Exception, **extra: object) -> None:
    """Log a failed step: an outage or a refusal with its `reason`, a bug with its traceback."""
    if isinstance(error, (*DATABASES_UNAVAILABLE, ProblemError)):
        logger.warning(message, extra={**extra, "reason": safe_error_text(error)})
    else:
        strip_row_details(error)  # it may be caught inside its transaction
        logger.error(message, extra=extra, exc_info=error)


def explain_outage(error: BaseException) -> str:
    """Return in one line why a database cannot be used, or a local file, and what to do about it."""
    if isinstance(error, OSError) and error.filename is not None:  # a connection has none
        return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
    if isinstance(error, REDIS_UNAVAILABLE) and not isinstance(error, OSError):
        return f"cannot use Redis: {error or type(error).__name__}; check that it runs and that REDIS_URL names it"
    return explain_unavailable(error)


@contextmanager
def exit_on_failed_start(*expected: type[Exception]) -> Iterator[None]:
    """End the process with one line and status 1 on an outage, a refusal or an `expected` error."""
    try:
        yield
    except expected as error:
        sys.exit(f"error: {error}")
    except ProblemError as error:
        sys.exit(f"error: {error}")
    except DATABASES_UNAVAILABLE as error:
        sys.exit(f"error: {explain_outage(error)}")
