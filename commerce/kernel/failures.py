"""Loops over many, in which one that fails does not keep the rest from their turn."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from commerce.kernel.errors import ProblemError, SomeFailed
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import safe_error_text

_MAX_NAMED = 20


class Failures:
    """The failures of a loop. Each is logged with its subject, and the loop goes on.

    `action` begins with a verb, as in "sync a sale". Without `logger` nothing is logged: for commands, which print
    the error that `raise_any` raises.
    """

    def __init__(self, action: str, logger: logging.Logger | None = None) -> None:
        self._action = action
        self._logger = logger
        self._texts: list[str] = []

    @property
    def count(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Add a failure that was logged already, named by its subject and reason."""
        self._texts.append(text)

    @contextmanager
    def catch(self, **subject: object) -> Iterator[None]:
        """Catch every error of the block, which deals with one subject, such as `sale_id="double-11"`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one must not stop the others
            name = " ".join(str(value) for value in subject.values())
            self._texts.append(f"{name} ({error if isinstance(error, ProblemError) else safe_error_text(error)})")
            if self._logger is not None:
                log_failure(self._logger, f"cannot {self._action}", error, **subject)

    def raise_any(self) -> None:
        """Raise `SomeFailed`, which names those that failed, if any did. Call after the loop."""
        if self._texts:
            more = f" and {self.count - _MAX_NAMED} more" if self.count > _MAX_NAMED else ""
            detail = f"cannot {self._action}: {', '.join(self._texts[:_MAX_NAMED])}{more}; the others are done"
            raise SomeFailed(detail, self.count)
