"""The pattern of a head matches exactly the heads like it, and extracts what the parser reads."""

from __future__ import annotations

import pytest

from gateway.request_head import HeadParser, Match

LINE = b"POST /v1/orders HTTP/1.1\r\n"
HEAD = (
    LINE + b"Host: shop\r\nContent-Type: application/json\r\nAuthorization: Bearer a.b.c\r\nIdempotency-Key: k-1\r\n"
    b"Content-Length: 2\r\n\r\n"
)


@pytest.fixture
def parser() -> HeadParser:
    return HeadParser()


@pytest.fixture
def match_head(parser: HeadParser) -> Match:
    head = parser.parse_head(HEAD, 64)
    assert head is not None
    assert head.fits_fast_path()
    pattern = parser.learn_pattern(LINE, head.names)
    assert pattern is not None
    return pattern


@pytest.mark.parametrize("key", [b"k-1", b"another one", b"x" * 200, b"~!"])
def test_pattern_extracts_values_of_parser(parser: HeadParser, match_head: Match, key: bytes) -> None:
    data = HEAD.replace(b"k-1", key)
    match, head = match_head(data + b"{}"), parser.parse_head(data, 64)
    assert match is not None
    assert head is not None
    assert (match.groups(), match.end()) == (head.values, len(data))


def test_pattern_ends_before_body(match_head: Match) -> None:
    match = match_head(HEAD + b"\0\r\n")
    assert match is not None
    assert (match.end(), match.groups()[-1]) == (len(HEAD), None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"k-1", b""),
        (b"k-1", b" k-1"),
        (b"k-1", b"k-1 "),
        (b"k-1", b"k\t1"),
        (b"k-1", b"k\xa01"),
        (b"k-1", b"k\r\nX: 1"),
        (b"k-1\r\n", b"k-1\n"),
        (b"Host", b"host"),
        (b"Host: ", b"Host : "),
        (b"Length: 2", b"Length: +2"),
        (b"Length: 2", b"Length: 123456789"),
        (b"application/json", b"application/json;charset=utf-8"),
        (b"POST /v1", b"POST  /v1"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_pattern_does_not_match_other_heads(match_head: Match, old: bytes, new: bytes) -> None:
    assert match_head(HEAD.replace(old, new, 1)) is None


def test_pattern_of_known_names_is_kept_and_separate_per_parser(parser: HeadParser, match_head: Match) -> None:
    head = parser.parse_head(HEAD, 64)
    assert head is not None
    assert parser.learn_pattern(LINE, head.names) is match_head
    assert HeadParser().learn_pattern(LINE, head.names) is not match_head
