"""What a request's head says to the express lane: parsed by httptools (llhttp, as in aiohttp), judged by its names.

Clients send few different sequences of header names. What such a sequence means, whether the lane may frame the request
and where each header is that it wants, is worked out once and kept. For the sequences that orders come with there is
also a pattern, which tells in one go that a head is like one that was parsed before and what its values are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import httptools

_JSON = (b"application/json", b"application/json; charset=utf-8")
_UNCOMMON = (
    *(b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"te", b"trailer"),
    b"proxy-connection",  # which aiohttp's parser obeys as if it were Connection
)
_WANTED = (
    *(b"content-length", b"host", b"content-type", b"connection"),
    *(b"authorization", b"idempotency-key", b"x-request-id", b"traceparent"),
)
_MAX_SHAPES = 1_024
_MAX_PATTERNS = 256
# What a parser could read in one way only, so that whoever matches may be taken at its word: visible ASCII, with blanks
# only in between.
_VALUE = rb"([!-~](?:[ -~]*[!-~])?)"
_VALUES = {
    b"content-length": rb"([0-9]{1,8})",
    b"content-type": rb"(application/json(?:; charset=utf-8)?)",
    b"connection": rb"([Kk]eep-[Aa]live)",
}


class HeaderLayout(NamedTuple):
    """What the names of a request's headers say, whatever their values. The numbers are places in the sequence, -1
    where a header is not there."""

    has_clear_framing: bool
    """the lane may find where the request ends"""
    length: int
    host: int
    content_type: int
    connection: int
    authorization: int
    key: int
    request_id: int
    traceparent: int


Values = Sequence[bytes | None]
"""The values of a head's headers, in their order; the last is None, which is what a place of -1 gives."""


class RequestHead(NamedTuple):
    """A request's headers."""

    names: tuple[bytes, ...]
    layout: HeaderLayout
    values: Values
    is_unambiguous: bool
    """the values can be read in one way only: ASCII, with no blanks at their ends (which aiohttp takes off)"""

    def body_length(self) -> int:
        """Of the body that follows; -1 where that is not beyond doubt."""
        text = self.values[self.layout.length]
        if text is None:
            return 0
        return int(text) if text.isdigit() and len(text) < 9 else -1

    def fits_fast_path(self) -> bool:
        """Whether this may be an order in the common form."""
        shape, values = self.layout, self.values
        if not self.is_unambiguous or shape.length < 0 or shape.host < 0 or values[shape.content_type] not in _JSON:
            return False
        connection = values[shape.connection]
        return connection is None or connection.lower() == b"keep-alive"


def parse_head(data: bytes, most_headers: int) -> RequestHead | None:
    """The head that `data` is, or None where the lane shall not frame the request: it is not valid, a name comes twice,
    a line is folded, or a header changes how the request is to be read."""
    headers: dict[bytes, bytes] = {}
    try:
        httptools.HttpRequestParser(_Taker(headers.__setitem__)).feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    names = tuple(headers)
    shape = _shapes[names]
    # Besides the request line and the empty one there is one line a name.
    if not shape.has_clear_framing or len(headers) > most_headers or data.count(b"\n") != len(headers) + 2:
        return None
    plain = data.isascii() and b" \r\n" not in data and b"\t\r\n" not in data
    return RequestHead(names, shape, (*headers.values(), None), plain)


Match = Callable[[bytes], "re.Match[bytes] | None"]


def head_pattern(line: bytes, head: RequestHead) -> Match | None:
    """What matches requests that begin with this line and are of the common form under these very names.

    The groups of a match are the head's values, and its end is the end of the head. None if there are too many patterns
    already: only those are kept that somebody has sent an order with.
    """
    key = (line, head.names)
    found = _patterns.get(key)
    if found is None and len(_patterns) < _MAX_PATTERNS:
        lines = [re.escape(name) + rb": ?" + _VALUES.get(name.lower(), _VALUE) + rb"\r\n" for name in head.names]
        found = re.compile(re.escape(line) + b"".join(lines) + rb"\r\n((?!))?").match  # a group that is never there
        _patterns[key] = found
    return found


_patterns: dict[tuple[bytes, tuple[bytes, ...]], Match] = {}


class _Taker:
    """Takes headers from httptools straight into a dictionary, without a Python call for each."""

    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], None]) -> None:
        self.on_header = on_header


def _shape_of(names: tuple[bytes, ...]) -> HeaderLayout:
    lower = [name.lower() for name in names]
    return HeaderLayout(
        len(set(lower)) == len(lower) and not any(name in lower for name in _UNCOMMON),
        *(lower.index(name) if name in lower else -1 for name in _WANTED),
    )


class _Shapes(dict[tuple[bytes, ...], HeaderLayout]):
    """The shapes seen so far, up to a number."""

    def __missing__(self, names: tuple[bytes, ...]) -> HeaderLayout:
        shape = _shape_of(names)
        if len(self) < _MAX_SHAPES:
            self[names] = shape
        return shape


_shapes = _Shapes()
