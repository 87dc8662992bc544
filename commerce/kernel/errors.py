"""Errors with a stable code and an HTTP status. A 5xx means that a dependency is unavailable.

Each package derives its own errors in its `errors.py`; the gateway turns each of them into a problem (RFC 9457).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self


class ProblemError(Exception):
    """Base class of expected refusals.

    `detail` states the reason and the remedy; `extra` becomes members of the problem, `headers` those of
    the answer.
    """

    code: ClassVar[str] = "invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The request cannot be accepted as it is"
    retry_after_s: ClassVar[int | None] = None
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class Invalid(ProblemError):
    """The content is well-formed and breaks a rule.

    `errors` lists `{"pointer": JSON pointer, "detail": text}`.
    """

    @classmethod
    def at(cls, pointer: str, detail: str) -> Self:
        """Return the refusal of one value of the body; the empty pointer is the whole body."""
        return cls(f"{pointer}: {detail}" if pointer else detail, errors=[{"pointer": pointer, "detail": detail}])


class UnreadableCsv(Invalid):
    title = "The file cannot be imported"


class NotAPicture(Invalid):
    """`reason` is a word from a short list: for whoever sent it, and for metrics."""

    code = "not_a_picture"
    title = "The upload is no picture that can be stored"

    def __init__(self, detail: str, reason: str = "unreadable") -> None:
        super().__init__(detail, reason=reason)
        self.reason = reason


class AddressNotPublic(Invalid):
    """A URL leads, or may lead, to an address that is not on the public internet."""

    code = "address_not_public"
    title = "The URL is not on the public internet"


class NotFound(ProblemError):
    code = "not_found"
    status = 404
    title = "There is no such thing, or it is not yours"


class Conflict(ProblemError):
    code = "conflict"
    status = 409
    title = "The present state does not allow this"


class KeyReused(ProblemError):
    code = "key_reused"
    status = 422
    title = "This Idempotency-Key was used with another request"


class NotReady(ProblemError):
    """Nothing was done. The request may be repeated."""

    code = "not_ready"
    status = 503
    title = "Not ready, nothing was done"
    retry_after_s = 1


class NotDurable(NotReady):
    """A server does not keep data as safely as the setting `durability` requires."""


class Overloaded(ProblemError):
    """The request was refused before anything was done."""

    code = "overloaded"
    status = 503
    title = "Too much to do right now, nothing was done"
    retry_after_s = 2


class OutcomeUnknown(ProblemError):
    """The request may or may not have been executed; it must not be reported as failed."""

    code = "outcome_unknown"
    status = 503
    title = "The outcome is not known yet"
    retry_after_s = 1


class SomeFailed(ProblemError):
    """Some of many failed, and the others had their turn. `count` is the number of those that failed."""

    title = "Some of many failed, the others are done"

    def __init__(self, detail: str, count: int) -> None:
        super().__init__(detail)
        self.count = count
