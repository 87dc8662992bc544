"""Error answers: problems (RFC 9457, `application/problem+json`) with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from math import ceil
from typing import Any, ClassVar

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from commerce.aftersales.model import Obstacle
from commerce.cart.cart_quotes import CartQuote
from commerce.cart.model import Cart
from commerce.kernel.errors import ProblemError
from commerce.product_quality.model import QualityFinding
from commerce.sale_changes.opening_model import OpeningGap

CONTENT_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """One wrong value; `pointer` is a JSON pointer into the body (RFC 6901), or the name of a parameter."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refused or failed request. `code` is stable; `detail` states the error and the remedy."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list[FieldError] | None = None
    sku: str | None = None
    skus: list[str] | None = None
    coupon: str | None = None
    opens_at: str | None = None
    number: int | None = None
    served: int | None = None
    limit: str | None = None
    until: str | None = None
    challenge: dict[str, Any] | None = None
    cart: Cart | None = None
    quote: CartQuote | None = None
    obstacles: list[Obstacle] | None = None
    version: int | None = None
    right: str | None = None
    certificate: str | None = None
    merged_into: str | None = None
    product_id: str | None = None
    gaps: list[OpeningGap] | None = None
    grade: str | None = None
    points: int | None = None
    findings: list[QualityFinding] | None = None
    reason: str | None = None


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
    title = "The media type of the body is not supported"


class TooManyRequests(ProblemError):
    code = "too_many_requests"
    status = 429
    title = "Too many requests"
    retry_after_s: ClassVar[int | None] = 1


UNAVAILABLE_TO_READ = "a database cannot be used now; repeat the request"


class RateLimited(TooManyRequests):
    """The tokens of a limit are used up: of a `user`, an `address`, a `device`, of `guest_carts`,
    of `articles` or of `searches`.

    The headers RateLimit-Policy and RateLimit are those of draft-ietf-httpapi-ratelimit-headers-11.
    """

    retry_after_s: ClassVar[int | None] = None  # computed, in the headers

    def __init__(self, limit: str, rate_per_s: float, burst: int, wait_s: int, retry_after_s: int) -> None:
        detail, policy, state = _rate_texts(limit, rate_per_s, burst, wait_s)
        super().__init__(detail, limit=limit)
        self.rest_s = retry_after_s
        self.headers = (("Retry-After", str(retry_after_s)), policy, state)


_COUNTED = {
    "guest_carts": "new carts of guests per second of one address",
    "articles": "searches and ratings of articles per second of one address",
    "searches": "searches of products per second of one address",
}


@lru_cache(maxsize=1_000)
def _rate_texts(limit: str, rate_per_s: float, burst: int, wait_s: int) -> tuple[str, tuple[str, str], tuple[str, str]]:
    """Return detail and headers of a refusal. They are kept: refused clients come again."""
    counted = _COUNTED.get(limit, f"orders per second of one {limit}")
    return (
        f"more than {rate_per_s:g} {counted}; wait {wait_s} s",
        ("RateLimit-Policy", f'"{limit}";q={burst};w={ceil(burst / rate_per_s)}'),
        ("RateLimit", f'"{limit}";r=0;t={wait_s}'),
    )


_CODES_BY_STATUS = {
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


def problem_codes() -> dict[str, tuple[int, str]]:
    """Return every code of an answer with its status and title: of refusals and of bare statuses."""
    codes: dict[str, tuple[int, str]] = {}
    unvisited: list[type[ProblemError]] = [ProblemError]
    while unvisited:
        problem = unvisited.pop()
        unvisited += problem.__subclasses__()
        codes.setdefault(problem.code, (problem.status, problem.title))
    for status, code in _CODES_BY_STATUS.items():
        codes.setdefault(code, (status, HTTPStatus(status).phrase))
    return codes


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer that depends on no server library."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()

    def to_aiohttp(self) -> web.Response:
        return web.Response(
            status=self.status, body=self.body, content_type=self.content_type, headers=CIMultiDict(self.headers)
        )


def raw_problem(refusal: ProblemError, request_id: str | None) -> RawResponse:
    """Build the answer to a refusal with its code, status and headers."""
    headers = list(refusal.headers)
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
    """Build the answer to a refusal as aiohttp's response."""
    return raw_problem(refusal, request_id).to_aiohttp()


def from_http(error: web.HTTPException, request_id: str | None) -> web.Response:
    """Build the answer to an error of aiohttp: no such path, wrong method, body too large."""
    headers = {name: error.headers[name] for name in ("Allow", "Location") if name in error.headers}
    return from_status(error.status, _http_error_detail(error), request_id, headers)


def _http_error_detail(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"this path does not support {error.method}; use {', '.join(sorted(error.allowed_methods))}"
    if error.status == HTTPStatus.NOT_FOUND:
        return "this path does not exist: see /docs"
    return error.text or error.reason


def from_status(
    status: int, detail: str, request_id: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Build the answer to a bare HTTP status."""
    code = _CODES_BY_STATUS.get(status, "invalid" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error")
    body = _encode(status, code, HTTPStatus(status).phrase, detail, request_id, {})
    return RawResponse(status, body, CONTENT_TYPE, tuple((headers or {}).items())).to_aiohttp()


def internal_error(request_id: str | None) -> web.Response:
    """Build the answer to a bug as aiohttp's response."""
    return raw_internal_error(request_id).to_aiohttp()


def raw_internal_error(request_id: str | None) -> RawResponse:
    """Build the answer to a bug. The details are in the log under the request's id, not in the answer."""
    detail = "internal error; the log has the details under the request id"
    return RawResponse(
        500, _encode(500, "internal_error", HTTPStatus(500).phrase, detail, request_id, {}), CONTENT_TYPE
    )
