"""An expected refusal is a typed error with a stable code and an HTTP status. A 5xx is a dependency that is down.

Each module derives its own refusals in its `errors.py`; the gateway turns any of them into a problem (RFC 9457).
"""

from __future__ import annotations

from typing import Any, ClassVar


class ProblemError(Exception):
    """The base of all. `detail` says what is wrong and what to do; `extra` goes into the problem as members."""

    code: ClassVar[str] = "invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The request cannot be accepted as it is"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class Invalid(ProblemError):
    """The content is well-formed but breaks a rule. `errors` lists `{"pointer": JSON pointer, "detail": text}`."""


class NotFound(ProblemError):
    code = "not_found"
    status = 404
    title = "There is no such thing, or it is not yours"


class Conflict(ProblemError):
    code = "conflict"
    status = 409
    title = "The present state does not allow this"


class NotReady(ProblemError):
    """Nothing was done. The same request may be sent again."""

    code = "not_ready"
    status = 503
    title = "Not ready, nothing was done"
    retry_after_s = 1


class NotDurable(NotReady):
    """A server does not keep what the setting `durability` promises."""


class Overloaded(ProblemError):
    """Refused at the door, before anything was done."""

    code = "overloaded"
    status = 503
    title = "Too much to do right now, nothing was done"
    retry_after_s = 2


class OutcomeUnknown(ProblemError):
    """It may or may not have been done: say so, never 'failed'."""

    code = "outcome_unknown"
    status = 503
    title = "The outcome is not known yet"
    retry_after_s = 1
