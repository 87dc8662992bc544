"""Every error leaves as a problem (RFC 9457, `application/problem+json`) with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from commerce.kernel.errors import ProblemError

CONTENT_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """One thing that is wrong; `at` is a JSON pointer into the body (RFC 6901)."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refused or failed request. `code` is stable; `detail` says what is wrong and what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list[FieldError] | None = None
    sku: str | None = None
    skus: list[str] | None = None
    opens_at: str | None = None


class BadRequest(ProblemError):
    code = "bad_request"
    status = 400
    title = "The request cannot be read"


class Unauthorized(ProblemError):
    code = "unauthorized"
    status = 401
    title = "A valid token is needed"


class Forbidden(ProblemError):
    code = "forbidden"
    status = 403
    title = "The token does not allow this"


class RequestTimeout(ProblemError):
    code = "request_timeout"
    status = 408
    title = "The request took too long to arrive"


class BodyTooLarge(ProblemError):
    code = "body_too_large"
    status = 413
    title = "The request is too large"


class WrongMediaType(ProblemError):
    code = "unsupported_media_type"
    status = 415
    title = "The body is not of a type that is understood"


class TooManyRequests(ProblemError):
    code = "too_many_requests"
    status = 429
    title = "Too many requests from one user"
    retry_after_s = 1


_BY_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    417: "expectation_failed",
    431: "header_too_large",
    500: "internal_error",
    503: "not_ready",
}


def codes() -> dict[str, tuple[int, str]]:
    """Every code that can be answered, with its status and title: those of refusals and those of bare statuses."""
    found: dict[str, tuple[int, str]] = {}
    waiting: list[type[ProblemError]] = [ProblemError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found.setdefault(kind.code, (kind.status, kind.title))
    for status, code in _BY_STATUS.items():
        found.setdefault(code, (status, HTTPStatus(status).phrase))
    return found


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer before any server library has to do with it."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> web.Response:
        return web.Response(
            status=self.status, body=self.body, content_type=self.content_type, headers=CIMultiDict(self.headers)
        )


def raw_problem(refusal: ProblemError, request_id: str | None) -> RawResponse:
    """A typed refusal with its own code, status and headers."""
    headers: list[tuple[str, str]] = []
    if refusal.retry_after_s is not None:
        headers.append(("Retry-After", str(refusal.retry_after_s)))
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", 'Bearer realm="floodgate"'))
    extra = {name: value for name, value in refusal.extra.items() if name in Problem.__struct_fields__}
    body = _encode(refusal.status, refusal.code, refusal.title, refusal.detail, request_id, extra)
    return RawResponse(refusal.status, body, CONTENT_TYPE, tuple(headers))


def _encode(status: int, code: str, title: str, detail: str, request_id: str | None, extra: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(Problem(f"/docs#problem-{code}", title, status, code, detail, request_id, **extra))


def from_refusal(refusal: ProblemError, request_id: str | None) -> web.Response:
    """The same as aiohttp's response."""
    return raw_problem(refusal, request_id).response()


def from_http(error: web.HTTPException, request_id: str | None) -> web.Response:
    """aiohttp's own errors (no such path, wrong method, too large) in the same form."""
    headers = {name: error.headers[name] for name in ("Allow", "Location") if name in error.headers}
    return from_status(error.status, _detail(error), request_id, headers)


def _detail(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not possible here; {', '.join(sorted(error.allowed_methods))} is"
    if error.status == HTTPStatus.NOT_FOUND:
        return "there is nothing at this path: see /docs"
    return error.text or error.reason


def from_status(
    status: int, detail: str, request_id: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    code = _BY_STATUS.get(status, "invalid" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error")
    body = _encode(status, code, HTTPStatus(status).phrase, detail, request_id, {})
    return RawResponse(status, body, CONTENT_TYPE, tuple((headers or {}).items())).response()


def internal_error(request_id: str | None) -> web.Response:
    """A bug. What it is stands in the log under the request's id, not in the answer."""
    return raw_internal_error(request_id).response()


def raw_internal_error(request_id: str | None) -> RawResponse:
    """The same before any server library has to do with it."""
    detail = "this is our fault; the log has it under the request id"
    return RawResponse(
        500, _encode(500, "internal_error", HTTPStatus(500).phrase, detail, request_id, {}), CONTENT_TYPE
    )
