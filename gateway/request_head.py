"""Parsing and classification of request heads for the fast path.

httptools (llhttp, as in aiohttp) parses a head; the sequence of its header names classifies it. Clients send few
different sequences. The parser works out once per sequence whether the fast path may frame the request and where each
header is, and keeps the result. For sequences of orders it also keeps a pattern, which recognises a similar head and
extracts its values in one match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

import httptools

_JSON = (b"application/json", b"application/json; charset=utf-8")
_UNCOMMON_NAMES = (
    *(b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"te", b"trailer"),
    b"proxy-connection",  # which aiohttp's parser obeys as if it were Connection
)
_LAYOUT_NAMES = (
    *(b"content-length", b"host", b"content-type", b"connection"),
    *(b"authorization", b"idempotency-key", b"x-request-id", b"traceparent", b"if-none-match"),
    *(b"x-device-id", b"x-forwarded-for", b"forwarded", b"room-ticket"),
    b"proof-of-work",
)
_MAX_LAYOUTS = 1_024
_MAX_PATTERNS = 256
# Only values that every parser reads alike: visible ASCII, with blanks only in between.
_VALUE = rb"([!-~](?:[ -~]*[!-~])?)"
_VALUES = {
    b"content-length": rb"([0-9]{1,8})",
    b"content-type": rb"(application/json(?:; charset=utf-8)?)",
    b"connection": rb"([Kk]eep-[Aa]live)",
}


class HeaderLayout(NamedTuple):
    """Properties of a sequence of header names, independent of the values.

    The numbers are positions in the sequence, -1 for a header that is missing.
    """

    has_clear_framing: bool
    """the fast path may find the end of the request"""
    form: int
    """the names and their sequence as a number of 32 bits"""
    length: int
    host: int
    content_type: int
    connection: int
    authorization: int
    key: int
    request_id: int
    traceparent: int
    if_none_match: int
    device_id: int
    x_forwarded_for: int
    forwarded: int
    room_ticket: int
    proof_of_work: int


Values = Sequence[bytes | None]
"""The values of a head's headers, in sequence. The last is None, so that position -1 returns None."""


class RequestHead(NamedTuple):
    """A request's headers."""

    names: tuple[bytes, ...]
    layout: HeaderLayout
    values: Values
    is_unambiguous: bool
    """every parser reads the values alike: ASCII, with no blanks at their ends (which aiohttp strips)"""

    def body_length(self) -> int:
        """Return the length of the body in bytes, -1 if it is not certain."""
        text = self.values[self.layout.length]
        if text is None:
            return 0
        return int(text) if text.isdigit() and len(text) < 9 else -1

    def fits_fast_path(self) -> bool:
        """Tell whether this may be an order in the common form."""
        layout, values = self.layout, self.values
        if not self.is_unambiguous or layout.length < 0 or layout.host < 0 or values[layout.content_type] not in _JSON:
            return False
        connection = values[layout.connection]
        return connection is None or connection.lower() == b"keep-alive"


Match = Callable[[bytes], "re.Match[bytes] | None"]


class LearnedHead(NamedTuple):
    """The pattern of a sequence of names, and their layout."""

    match: Match
    layout: HeaderLayout


class HeadParser:
    """Parses heads; keeps the layouts and patterns of sequences of names, up to a limit.

    A new layout takes the place of the oldest, a new pattern that of the one not looked up for longest.
    """

    def __init__(self) -> None:
        self.latest: LearnedHead | None = None
        """the head learned last, with which a new connection most likely begins: many use the same app"""
        self._layouts = _Layouts()
        self._patterns: dict[tuple[bytes, tuple[bytes, ...]], Match] = {}

    def parse_head(self, data: bytes, max_headers: int) -> RequestHead | None:
        """Parse `data` as one complete head.

        Returns None if the fast path must not frame the request: the head is not valid, a name comes twice, a line is
        folded, or a header changes how the request is read.
        """
        headers: dict[bytes, bytes] = {}
        try:
            httptools.HttpRequestParser(_HeaderSink(headers.__setitem__)).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        names = tuple(headers)
        layout = self._layouts[names]
        # Besides the request line and the empty one there is one line per name.
        if not layout.has_clear_framing or len(headers) > max_headers or data.count(b"\n") != len(headers) + 2:
            return None
        is_unambiguous = data.isascii() and b" \r\n" not in data and b"\t\r\n" not in data
        return RequestHead(names, layout, (*headers.values(), None), is_unambiguous)

    def find_pattern(self, line: bytes, names: tuple[bytes, ...]) -> Match | None:
        """Return the matcher that was learned for this request line and these names, None if none was."""
        pattern = self._patterns.pop((line, names), None)
        if pattern is not None:
            self._patterns[line, names] = pattern
        return pattern

    def learn_pattern(self, line: bytes, names: tuple[bytes, ...]) -> Match:
        """Return and keep a matcher for requests with this request line, these very names and the common form.

        The groups of a match are the head's values, its end is the end of the head. Call it only with the heads of
        accepted orders: anybody can send any others.
        """
        pattern = self.find_pattern(line, names)
        if pattern is None:
            if len(self._patterns) >= _MAX_PATTERNS:
                del self._patterns[next(iter(self._patterns))]
            lines = [re.escape(name) + rb": ?" + _VALUES.get(name.lower(), _VALUE) + rb"\r\n" for name in names]
            # The last group never matches: it is the None at the end of the values.
            pattern = re.compile(re.escape(line) + b"".join(lines) + rb"\r\n((?!))?").match
            self._patterns[line, names] = pattern
        self.latest = LearnedHead(pattern, self._layouts[names])
        return pattern


class _HeaderSink:
    """Takes headers from httptools straight into a dictionary, without a Python call for each."""

    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], None]) -> None:
        self.on_header = on_header


class _Layouts(dict[tuple[bytes, ...], HeaderLayout]):
    """The layouts computed so far, up to a limit."""

    def __missing__(self, names: tuple[bytes, ...]) -> HeaderLayout:
        layout = _compute_layout(names)
        if len(self) >= _MAX_LAYOUTS:
            del self[next(iter(self))]
        self[names] = layout
        return layout


def _compute_layout(names: tuple[bytes, ...]) -> HeaderLayout:
    lower = [name.lower() for name in names]
    return HeaderLayout(
        len(set(lower)) == len(lower) and not any(name in lower for name in _UNCOMMON_NAMES),
        compute_form(names),
        *(lower.index(name) if name in lower else -1 for name in _LAYOUT_NAMES),
    )


def compute_form(names: Iterable[bytes]) -> int:
    """Return the number of a sequence of header names.

    Programs send others than browsers, and in other sequences.
    """
    return crc32(b"\n".join(names))
