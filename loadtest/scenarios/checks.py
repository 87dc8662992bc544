"""Checks of single answers. A check raises `Violation`; it does not know how the answer was fetched.

Codes and statuses are written here as the API's documentation lists them, not imported: the shop must keep to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from gateway.problems import CONTENT_TYPE, Problem

T = TypeVar("T")

REFUSALS = {
    "sold_out": 409,
    "not_payable": 409,
    "over_limit": 409,
    "not_stored_yet": 409,
    "checkout_in_progress": 409,
    "sale_not_open": 403,
    "sale_paused": 403,
    "sale_closed": 410,
    "too_many_requests": 429,
    "overloaded": 503,
    "not_ready": 503,
    "outcome_unknown": 503,
}
"""every refusal that a customer may get from a correct shop, with its status"""
READ_REFUSALS = frozenset({"not_ready", "overloaded"})
CANCEL_REFUSALS = frozenset({"not_stored_yet", "not_ready", "overloaded", "outcome_unknown"})
ORDER_REFUSALS = frozenset(REFUSALS) - {"not_stored_yet", "not_payable", "checkout_in_progress"}
PAYMENT_REFUSALS = CANCEL_REFUSALS | {"not_payable"}
CART_REFUSALS = frozenset({"sale_closed", "too_many_requests", "overloaded", "not_ready"})
CHECKOUT_REFUSALS = CART_REFUSALS - {"sale_closed"} | {"checkout_in_progress", "outcome_unknown"}
_RETRY_AFTER_REFUSALS = CANCEL_REFUSALS | {"too_many_requests", "sale_paused", "checkout_in_progress"}
_SALE_OPENING_WAIT_S = 1.0
_MAX_WAIT_S = 30.0
_problem = msgspec.json.Decoder(Problem)


class Violation(Exception):
    """A broken promise of the shop. `text` is the same for all violations of a kind, `detail` is not."""

    def __init__(self, text: str, detail: object = "") -> None:
        super().__init__(text)
        self.text = text
        self.detail = str(detail)


def expect(holds: bool, text: str, detail: object = "") -> None:
    """Raise `Violation` unless the condition holds."""
    if not holds:
        raise Violation(text, detail)


@dataclass(frozen=True, slots=True)
class CheckedResponse:
    """A response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ExpectedRefusal:
    """A refusal that the API allows. `wait_s`: retry after so many seconds; None: the answer is final."""

    code: str
    wait_s: float | None = None
    sku: str | None = None

    @property
    def is_outcome_unknown(self) -> bool:
        """Tell whether the request may have been carried out nevertheless."""
        return self.code in ("no_answer", "outcome_unknown")


NO_ANSWER = ExpectedRefusal("no_answer", wait_s=0.5)


def decode(decoder: msgspec.json.Decoder[T], response: CheckedResponse) -> T:
    """Decode a body as the type that the API promises. Raises `Violation` if it does not fit."""
    try:
        return decoder.decode(response.body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Violation("the body is not what the API describes", f"{error}: {response.body[:200]!r}") from None


def decode_success(decoder: msgspec.json.Decoder[T], response: CheckedResponse) -> T:
    """Decode the body of a 200. Raises `Violation` for any other status."""
    expect(response.status == 200, f"{response.status} where only 200 is right")
    return decode(decoder, response)


def check_refusal(response: CheckedResponse, allowed_codes: Collection[str]) -> ExpectedRefusal | None:
    """Return a status of 400 and above as a refusal, or None for any other status.

    Raises `Violation` if the code is not among `allowed_codes` or the problem contradicts the response.
    """
    if response.status < 400:
        expect("x-request-id" in response.headers, "the answer has no X-Request-Id")
        return None
    media_type = response.headers.get("content-type", "").partition(";")[0]
    expect(media_type == CONTENT_TYPE, f"a {response.status} that is not {CONTENT_TYPE}", media_type)
    problem = decode(_problem, response)
    status_and_code = f"{response.status} {problem.code}"
    expect(problem.code in allowed_codes, f"refused with {status_and_code}, which may not be here", problem.detail)
    expect(problem.status == response.status, "a problem names another status than its answer has", problem.status)
    expect(REFUSALS[problem.code] == response.status, f"the status does not fit the code: {status_and_code}")
    # The gateway refuses surplus connections before there is a request, and so without an id.
    request_id = response.headers.get("x-request-id")
    expect(problem.request_id == request_id, "a problem names another request than its answer")
    return ExpectedRefusal(problem.code, _read_wait_s(response, problem.code), problem.sku)


def _read_wait_s(response: CheckedResponse, code: str) -> float | None:
    """Return the seconds until a retry, at most 30, or None for a final refusal."""
    if code == "sale_not_open":
        return _SALE_OPENING_WAIT_S
    return read_retry_after(response, code) if code in _RETRY_AFTER_REFUSALS else None


def read_retry_after(response: CheckedResponse, code: str) -> float:
    """Return the seconds that a response tells its client to wait, at most 30."""
    seconds = response.headers.get("retry-after")
    expect(seconds is not None, f"{response.status} {code} without Retry-After")
    assert seconds is not None
    is_number = seconds.isascii() and seconds.isdigit() and int(seconds) > 0
    expect(is_number, "Retry-After is not a number of seconds", seconds)
    return min(float(seconds), _MAX_WAIT_S)


@dataclass(frozen=True, slots=True)
class TaggedValue(Generic[T]):
    """A value of the catalog with its ETag."""

    tag: str
    value: T


def check_tagged(
    response: CheckedResponse,
    decoder: msgspec.json.Decoder[T],
    is_right: Callable[[T], bool] = bool,
    cached: TaggedValue[T] | None = None,
) -> TaggedValue[T] | ExpectedRefusal:
    """Check the answer to a read that sent the ETag of `cached`, and return the cached or the new value.

    `is_right` returns True if the value is the one that was requested.
    """
    if refusal := check_refusal(response, READ_REFUSALS):
        return refusal
    tag = response.headers.get("etag", "")
    quoted = tag.removeprefix("W/")
    is_tag = quoted.startswith('"') and quoted.endswith('"') and len(quoted) > 2
    expect(is_tag, "a read of the catalog has no ETag", tag)
    if response.status == 304:
        expect(cached is not None, "304, though no ETag was sent")
        assert cached is not None
        expect(tag == cached.tag, "304 with another ETag than was sent", f"{tag} for {cached.tag}")
        expect(not response.body, "304 with a body")
        return cached
    expect(cached is None or tag != cached.tag, "the ETag that was sent is still right, and no 304 came", tag)
    value = decode_success(decoder, response)
    expect(is_right(value), "the catalog shows something else than was requested", value)
    return TaggedValue(tag, value)
