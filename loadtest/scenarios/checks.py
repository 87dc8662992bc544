"""What any answer of the shop must be. A check raises `Violation`; how the answer was fetched is not known here.

Codes and statuses are written down as the documentation of the API has them, not imported: the shop is held to what
it says.
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
    "over_limit": 409,
    "not_stored_yet": 409,
    "sale_not_open": 403,
    "sale_paused": 403,
    "sale_closed": 410,
    "too_many_requests": 429,
    "overloaded": 503,
    "not_ready": 503,
    "outcome_unknown": 503,
}
"""Every refusal that a shopper may meet without anything being wrong."""
READING = frozenset({"not_ready", "overloaded"})
CANCELLING = frozenset({"not_stored_yet", "not_ready", "overloaded", "outcome_unknown"})
ORDERING = frozenset(REFUSALS) - {"not_stored_yet"}
_LATER = CANCELLING | {"too_many_requests", "sale_paused"}
_OPENS_S = 1.0
_LONGEST_WAIT_S = 30.0
_problem = msgspec.json.Decoder(Problem)


class Violation(Exception):
    """The shop broke a promise. `text` is the same for all of a kind, `detail` says it of this one."""

    def __init__(self, text: str, detail: object = "") -> None:
        super().__init__(text)
        self.text = text
        self.detail = str(detail)


def expect(holds: bool, text: str, detail: object = "") -> None:
    """Raise `Violation` unless it holds."""
    if not holds:
        raise Violation(text, detail)


@dataclass(frozen=True, slots=True)
class CheckedResponse:
    """A response; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """An expected refusal. `wait_s`: ask again after so many seconds; None: the answer is final."""

    code: str
    wait_s: float | None = None
    sku: str | None = None

    @property
    def unclear(self) -> bool:
        """Whether the request may have been carried out all the same."""
        return self.code in ("no_answer", "outcome_unknown")


NO_ANSWER = Refused("no_answer", wait_s=0.5)


def decode(decoder: msgspec.json.Decoder[T], answer: CheckedResponse) -> T:
    """The body as the type that the API promises."""
    try:
        return decoder.decode(answer.body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Violation("the body is not what the API describes", f"{error}: {answer.body[:200]!r}") from None


def content(decoder: msgspec.json.Decoder[T], answer: CheckedResponse) -> T:
    """What a 200 brought."""
    expect(answer.status == 200, f"{answer.status} where only 200 is right")
    return decode(decoder, answer)


def refusal(answer: CheckedResponse, may: Collection[str]) -> Refused | None:
    """An answer of 400 and above as a refusal, whose code must be among these; None for any other answer."""
    if answer.status < 400:
        expect("x-request-id" in answer.headers, "the answer has no X-Request-Id")
        return None
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    expect(media_type == CONTENT_TYPE, f"a {answer.status} that is not {CONTENT_TYPE}", media_type)
    problem = decode(_problem, answer)
    said = f"{answer.status} {problem.code}"
    expect(problem.code in may, f"refused with {said}, which may not be here", problem.detail)
    expect(problem.status == answer.status, "a problem names another status than its answer has", problem.status)
    expect(REFUSALS[problem.code] == answer.status, f"the status does not fit the code: {said}")
    # The edge turns away a connection too many before there is a request, and so without an id.
    expect(problem.request_id == answer.headers.get("x-request-id"), "a problem names another request than its answer")
    return Refused(problem.code, _wait_s(answer, problem.code), problem.sku)


def _wait_s(answer: CheckedResponse, code: str) -> float | None:
    if code == "sale_not_open":
        return _OPENS_S
    if code not in _LATER:
        return None
    given = answer.headers.get("retry-after")
    expect(given is not None, f"{answer.status} {code} without Retry-After")
    assert given is not None
    expect(given.isascii() and given.isdigit() and int(given) > 0, "Retry-After is not a number of seconds", given)
    return min(float(given), _LONGEST_WAIT_S)


@dataclass(frozen=True, slots=True)
class Tagged(Generic[T]):
    """Something of the catalogue and the ETag it came with."""

    tag: str
    value: T


def tagged(
    answer: CheckedResponse,
    decoder: msgspec.json.Decoder[T],
    right: Callable[[T], bool] = bool,
    known: Tagged[T] | None = None,
) -> Tagged[T] | Refused:
    """The answer to a read that named the ETag of what is known: the same again, or something new.

    `right` tells whether it is what was asked for.
    """
    if refused := refusal(answer, READING):
        return refused
    tag = answer.headers.get("etag", "")
    expect(tag.startswith('"') and tag.endswith('"') and len(tag) > 2, "a read of the catalogue has no ETag", tag)
    if answer.status == 304:
        expect(known is not None, "304, though no ETag was sent")
        assert known is not None
        expect(tag == known.tag, "304 with another ETag than was sent", f"{tag} for {known.tag}")
        expect(not answer.body, "304 with a body")
        return known
    expect(known is None or tag != known.tag, "the ETag that was sent is still right, and no 304 came", tag)
    value = content(decoder, answer)
    expect(right(value), "the catalogue shows something else than was asked for", value)
    return Tagged(tag, value)
