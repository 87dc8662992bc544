"""The pattern of a head says the same as the parser of heads that are like it, and nothing of others."""

from __future__ import annotations

import pytest

from gateway import request_head

LINE = b"POST /v1/orders HTTP/1.1\r\n"
HEAD = (
    LINE + b"Host: shop\r\nContent-Type: application/json\r\nAuthorization: Bearer a.b.c\r\nIdempotency-Key: k-1\r\n"
    b"Content-Length: 2\r\n\r\n"
)


def order_head_pattern() -> request_head.Match:
    head = request_head.parse_head(HEAD, 64)
    assert head is not None
    assert head.fits_fast_path()
    found = request_head.head_pattern(LINE, head)
    assert found is not None
    return found


@pytest.mark.parametrize("key", [b"k-1", b"another one", b"x" * 200, b"~!"])
def test_it_finds_what_the_parser_finds(key: bytes) -> None:
    data = HEAD.replace(b"k-1", key)
    found, parsed = order_head_pattern()(data + b"{}"), request_head.parse_head(data, 64)
    assert found is not None
    assert parsed is not None
    assert (found.groups(), found.end()) == (parsed.values, len(data))


def test_a_body_is_no_part_of_it() -> None:
    found = order_head_pattern()(HEAD + b"\0\r\n")
    assert found is not None
    assert (found.end(), found.groups()[-1]) == (len(HEAD), None)


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
def test_what_is_not_like_it_is_left_to_the_parser(old: bytes, new: bytes) -> None:
    assert order_head_pattern()(HEAD.replace(old, new, 1)) is None
