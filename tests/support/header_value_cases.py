"""Requests with unusual, ambiguous or hostile header values, and bytes that are not HTTP, by name."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.gateway_pair import GatewayPair

GET = b"GET /v1/sales HTTP/1.1\r\nHost: x\r\n"


def repeated_header_cases(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    for name in (
        b"Host",
        b"Authorization",
        b"Idempotency-Key",
        b"Content-Type",
        b"X-Request-Id",
        b"Traceparent",
        b"Connection",
    ):
        for value in (b"", b"k", b"application/json", b"close", b"Bearer " + gateways.user()):
            yield f"{name!r} and {value[:12]!r}", gateways.order(more=name + b": " + value + b"\r\n")
    for host in (
        None,
        b"",
        b"a b",
        b"a,b",
        b"[::1]:80",
        b"user@host",
        b"x" * 300,
        b"a/b",
        b"\xff",
        b":",
        b"shop:99999",
    ):
        yield f"Host {host!r:.20}", gateways.order(headers={b"Host": host})


def token_cases(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    good = gateways.user()
    for name, bearer in {
        "expired": gateways.user(ttl_s=-60),
        "of staff": gateways.user(roles=["operator"]),
        "cut off": good[:-3],
        "and more": good + b".x",
        "twice": good + b" " + good,
        "in quotes": b'"' + good + b'"',
        "none": b" ",
        "garbage": b"abc.def.ghi",
        "not ASCII": "тoken".encode(),
        "not UTF-8": b"\xff\xfe",
        "enormous": b"x" * 4_500,
    }.items():
        yield name, gateways.order(bearer=bearer)
        yield f"{name}, with a bad body", gateways.order(bearer=bearer, body=b"{")
    yield "missing", gateways.order(bearer=None)
    for scheme in (
        b"bearer ",
        b"BEARER ",
        b"Bearer",
        b"Bearer  ",
        b"Bearer\t",
        b"Basic ",
        b" Bearer ",
        b"Token ",
        b"",
        b"\xc3\xbc ",
    ):
        yield f"scheme {scheme!r}", gateways.order(headers={b"Authorization": scheme + gateways.user()})
    yield "and blanks behind it", gateways.order(headers={b"Authorization": b"Bearer " + gateways.user() + b" \t "})


def idempotency_key_cases(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    keys = [
        None,
        b"",
        b" ",
        b"x",
        b"x" * 128,
        b"x" * 129,
        b"x" * 4_000,
        b"a b",
        b"a\tb",
        "ключ".encode(),
        b"\xff",
        b"k\x7f",
    ]
    keys += [
        b"k\x00",
        b"!~",
        b'"k"',
        b"k ",
        b"\tk",
        b"k,k",
        b"k\r\nX-A: b",
        b"k\r\n\r\n",
        b"k\n",
        b"k\rX: y",
        b"%00",
        b"{{}}",
        b"\xa0",
    ]
    for key in keys:
        yield f"{key!r:.40}", gateways.order(key=key)
    yield "in other letters", gateways.order(key=None, headers={b"idempotency-KEY": b"k"})
    yield "with a low line", gateways.order(key=None, headers={b"Idempotency_Key": b"k"})


def request_id_cases(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    values = [
        b"mine",
        b"a" * 64,
        b"a" * 65,
        b"",
        b"a b",
        b"<script>",
        b"a\r\nX-B: c",
        b"a\r\n\r\nHTTP/1.1 200 OK",
        b"\xc3\xbc",
    ]
    values += [
        b"\xff",
        b"a\tb",
        b"a\x00",
        b"a\n",
        b"..",
        b"-",
        b"a%0d%0aX-B: c",
        b" a ",
        b"a;",
        b"00-" + b"a" * 32 + b"-b-01",
    ]
    for value in values:
        for name in (b"X-Request-Id", b"traceparent", b"User-Agent"):
            yield f"{name!r} {value!r:.40}", gateways.order(headers={name: value})
            yield f"{name!r} {value!r:.40} with a bad body", gateways.order(headers={name: value}, body=b"{}")
            yield f"{name!r} {value!r:.40} of a read", GET + name + b": " + value + b"\r\n\r\n"


def not_http_cases(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2
    yield "HTTP/0.9", b"GET /v1/sales\r\n"
    for data in (
        b"\0" * 100,
        b"\xff" * 9_000,
        b"a" * 20_000,
        b"\r\n" * 5_000,
        b" " * 9_000,
        b"{}",
        b"SSH-2.0-x\r\n",
        b"EHLO x\r\n",
    ):
        yield f"{data[:12]!r}", data
    yield "a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    yield "PROXY", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + gateways.order()
    for size in (1, 4, 5, 15, 16, 24, 25, 26, 40, 120):
        yield f"the first {size} bytes of an order", gateways.order()[:size]


ALL = (repeated_header_cases, token_cases, idempotency_key_cases, request_id_cases, not_http_cases)
