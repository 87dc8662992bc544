"""Requests with an unusual, ambiguous or hostile head, by name."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support import header_value_cases
from tests.support.gateway_pair import GatewayPair, RequestCase, single_connection_case
from tests.support.header_value_cases import GET
from tests.support.raw_http import RequestScript


def request_head_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    for cases in (_lengths, _chunks, _types, _targets, _lines, _names_and_values, *header_value_cases.ALL):
        for name, data in cases(gateways):
            yield single_connection_case(f"{cases.__name__.strip('_')}: {name}", data)
    yield from _expectations(gateways)


def _lengths(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    length = len(gateways.body())
    texts = [str(length + n).encode() for n in (-1, 1, -10, 40, 5_000)]
    texts += [b"+%d" % length, b"-5", b"-0", b"0", b"", b"00%d" % length, b"0" * 30 + b"%d" % length, b"0x%x" % length]
    texts += [b"%d, %d" % (length, length), b"%d,%d" % (length, length + 1), b"%d;" % length, b"%d.0" % length, b"1e2"]
    texts += [b"%d\t" % length, b" %d  " % length, b"1 %d" % length, b"abc", b"\xb2", b"\xd9\xa3", b"9" * 9, b"9" * 20]
    texts += [b"9" * 40, b"1_0", b"%d\x00" % length, b'"%d"' % length, b"262144", b"262145", b"18446744073709551617"]
    for text in texts:
        yield f"Content-Length {text[:50]!r}", gateways.order(headers={b"Content-Length": text})
        yield f"Content-Length {text[:50]!r} for a read", GET + b"Content-Length: " + text + b"\r\n\r\n"
    yield "none", gateways.order(headers={b"Content-Length": None})
    yield "none and no body", gateways.order(headers={b"Content-Length": None}, body=b"")
    for second in (length, length + 1, 0):
        yield f"two, {second}", gateways.order(more=b"Content-Length: %d\r\n" % second)
        yield f"two in other letters, {second}", gateways.order(more=b"CONTENT-length: %d\r\n" % second)
    for coding in (
        b"chunked",
        b"Chunked",
        b"identity",
        b"gzip",
        b"chunked, chunked",
        b"gzip, chunked",
        b"xchunked",
        b"",
    ):
        yield f"and Transfer-Encoding {coding!r}", gateways.order(more=b"Transfer-Encoding: " + coding + b"\r\n")
    yield "and Transfer-Encoding before a blank", gateways.order(more=b"Transfer-Encoding : chunked\r\n")
    yield "and Transfer-Encoding behind a tab", gateways.order(more=b"Transfer-Encoding:\tchunked\r\n")
    yield "and Transfer-Encoding folded", gateways.order(more=b"Transfer-Encoding:\r\n chunked\r\n")
    yield "and Transfer-Encoding behind a bare CR", gateways.order(more=b"X: a\rTransfer-Encoding: chunked\r\n")
    yield "the largest body", gateways.order(body=gateways.body() + b" " * (262_144 - length))
    yield "one byte more than the largest body", gateways.order(body=gateways.body() + b" " * (262_145 - length))
    yield "a large body nobody reads", gateways.order(body=gateways.body() + b" " * 200_000, bearer=None)
    yield "a large body of another type", gateways.order(body=b"x" * 200_000, headers={b"Content-Type": b"text/plain"})
    yield "a large body where none is read", GET + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000


def _chunks(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    body = gateways.body()
    size = b"%x" % len(body)
    coded = {
        "one chunk": size + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "chunks of one byte": b"".join(b"1\r\n%c\r\n" % byte for byte in b" " * 200)
        + size
        + b"\r\n"
        + body
        + b"\r\n0\r\n\r\n",
        "capital letters": size.upper() + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "leading zeros": b"0000" + size + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "an extension": size + b";a=b\r\n" + body + b"\r\n0\r\n\r\n",
        "an extension with a bare LF": size + b";a=\n\r\n" + body + b"\r\n0\r\n\r\n",
        "a trailer": size + b"\r\n" + body + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
        "a trailer with a length": size + b"\r\n" + body + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
        "no last chunk": size + b"\r\n" + body + b"\r\n",
        "no number": b"\r\n" + body + b"\r\n0\r\n\r\n",
        "a wrong number": b"zz\r\n" + body + b"\r\n0\r\n\r\n",
        "a negative number": b"-" + size + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "0x": b"0x" + size + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "too short": b"5\r\n" + body + b"\r\n0\r\n\r\n",
        "bare LF": size + b"\n" + body + b"\n0\n\n",
        "bare LF behind the data": size + b"\r\n" + body + b"\n0\r\n\r\n",
        "an enormous number": b"f" * 17 + b"\r\n" + body + b"\r\n0\r\n\r\n",
        "nothing": b"0\r\n\r\n",
    }
    for name, data in coded.items():
        chunked: dict[bytes, bytes | None] = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
        yield name, gateways.order(body=b"", headers=chunked) + data
    for coding in (b"Chunked", b"chunked ", b"identity", b"gzip, chunked", b"chunked, identity", b"chun\x0bked", b"a"):
        yield (
            f"Transfer-Encoding {coding!r}",
            gateways.order(body=b"", headers={b"Content-Length": None, b"Transfer-Encoding": coding})
            + coded["one chunk"],
        )


def _types(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    types = [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
    ]
    types += [
        'application/json; charset="utf-8"',
        "application/json; charset=latin-1",
        "application/json;",
        "text/json",
    ]
    types += [
        "application/json; charset=utf-16",
        "application/problem+json",
        "application/jsonx",
        "json",
        "",
        "*/*",
        "/",
    ]
    types += [
        "application/json, text/plain",
        " application/json ",
        "application/json\t",
        "text/plain; a=application/json",
    ]
    types += ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json; q=ü", "ü/json"]
    for kind in types:
        yield f"{kind!r}", gateways.order(headers={b"Content-Type": kind.encode("latin-1")})
    yield "none", gateways.order(headers={b"Content-Type": None})
    for coding in (b"gzip", b"identity", b"br", b""):
        yield f"Content-Encoding {coding!r}", gateways.order(headers={b"Content-Encoding": coding})
    for accept in (b"*/*", b"text/html", b"", b"application/xml;q=0"):
        yield f"Accept {accept!r}", gateways.order(headers={b"Accept": accept, b"Accept-Encoding": b"gzip, br"})


def _targets(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    targets = [
        "/v1/orders?",
        "/v1/orders?a=b",
        "/v1/orders/",
        "//v1/orders",
        "/v1//orders",
        "/v1/./orders",
        "/v1/orders#a",
    ]
    targets += [
        "/v1/%6frders",
        "/v1/orders%20",
        "/v1%2forders",
        "/V1/orders",
        "/v1/orders/../orders",
        "/v1/x/../orders",
    ]
    targets += [
        "http://shop.example/v1/orders",
        "https://other/v1/orders?x",
        "http:///v1/orders",
        "*",
        "shop:443",
        "v1/orders",
    ]
    targets += [
        "/v1/orders%00",
        "/v1/orders%ff",
        "/v1/orders%",
        "/v1/orders;a",
        "/" + "a" * 7_000,
        "/" + "a" * 9_000,
        "/",
    ]
    targets += [
        "/v1/orders\\",
        '/v1/"orders',
        "/v1/{orders}",
        "/v1/orders\x7f",
        "/v1/orders\x01",
        "/v1/ordersü",
        "/nowhere",
    ]
    for target in targets:
        yield f"target {target[:40]!r}", gateways.order(line=b"POST " + target.encode("latin-1") + b" HTTP/1.1")


def _lines(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    for version in ("1.0", "0.9", "2.0", "1.2", "1.10", "01.1", "1", "", "11", "1.1 ", "1.1x", "9.9"):
        yield f"version {version!r}", gateways.order(line=f"POST /v1/orders HTTP/{version}".encode())
        yield f"version {version!r} of a read", f"GET /v1/sales HTTP/{version}\r\nHost: x\r\n\r\n".encode()
    methods = [
        "post",
        "Post",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "BREW",
        "P0ST",
        "PÖST",
    ]
    methods += ["GET", "M-SEARCH", "QUERY", "PRI", "SOURCE", "X" * 30, "", "POST\x00", "PO ST", "P", "LOCK", "PURGE"]
    for method in methods:
        yield f"method {method!r}", gateways.order(line=f"{method} /v1/orders HTTP/1.1".encode("latin-1"))
    for line in (b"POST  /v1/orders HTTP/1.1", b"POST\t/v1/orders\tHTTP/1.1", b" POST /v1/orders HTTP/1.1"):
        yield f"line {line!r}", gateways.order(line=line)
    for line in (
        b"POST /v1/orders",
        b"POST /v1/orders HTTP/1.1 x",
        b"POST /v1/orders http/1.1",
        b"POST /v1/orders HTTP 1.1",
    ):
        yield f"line {line!r}", gateways.order(line=line)
    for before in (
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n" * 5,
        b"\n",
        b"\n\n",
        b" ",
        b"\t",
        b"\0",
        b"\r",
        b"x",
        b"\xef\xbb\xbf",
        b"\r\n \r\n",
    ):
        yield f"{before!r} before it", before + gateways.order()
        yield f"{before!r} before a read", before + GET + b"\r\n"
    yield "lower-case names", gateways.order().replace(b"Content-Length", b"content-length").replace(b"Host", b"host")
    yield "capital names", gateways.order().replace(b"Authorization", b"AUTHORIZATION").replace(b"Host", b"HOST")


_LINES: tuple[bytes, ...] = (
    *[b"X-A%c: b\r\n" % byte for byte in (0, 1, 9, 11, 13, 31, 32, 34, 40, 44, 47, 58, 64, 91, 123, 127, 128, 255)],
    *[b"X-A: b%cc\r\n" % byte for byte in (0, 1, 9, 10, 11, 12, 13, 27, 31, 127, 128, 133, 160, 255)],
    *[
        b": b\r\n",
        b"X-A\r\n",
        b" X-A: b\r\n",
        b"\tX-A: b\r\n",
        b"X-A:b\r\n",
        b"X-A:\r\n",
        b"X-A: \r\n",
        b"X-A:  b  \r\n",
    ],
    *[b"X-A: b\r\n c\r\n", b"X-A: b\r\n\tc\r\n", b"X-A: b\r\n \r\n", b"X-A : b\r\n", b"X-A: b\n", b"X-A: b\n\r\n"],
    *[
        b"X-A: b\r\r\n",
        b"\nX-A: b\r\n",
        b"X-A: b\n c\r\n",
        b"X-A: b\rX-B: c\r\n",
        b"X-A: b\r\n\nX-B: c\r\n",
        b"\r\n",
    ],
    *[
        b"X-Long: " + b"y" * 5_000 + b"\r\n",
        b"X-Long: " + b"y" * 8_170 + b"\r\n",
        b"X-Long: " + b"y" * 9_000 + b"\r\n",
    ],
    *[b"X" * 8_300 + b": y\r\n", b"X-A: y\r\n" * 90, b"".join(b"X-%d: y\r\n" % n for n in range(90))],
    *[b"".join(b"X-%d: y\r\n" % n for n in range(count)) for count in (50, 58, 59, 60, 61)],
    *[b"".join(b"X-%d: %s\r\n" % (n, b"y" * 4_000) for n in range(count)) for count in (2, 8, 20)],
    *[
        b"Connection: close\r\n",
        b"Connection: Keep-Alive\r\n",
        b"Connection: keep-alive, close\r\n",
        b"Connection: \r\n",
    ],
    *[
        b"Connection: upgrade\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
        b"TE: trailers\r\n",
    ],
    *[
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        b"Trailer: X\r\n",
    ],
    *[
        b"Connection: x\r\n",
        b"Connection: Transfer-Encoding\r\n",
        b"Keep-Alive: timeout=5\r\n",
        b"Proxy-Connection: close\r\n",
    ],
    *[b"X-HTTP-Method-Override: DELETE\r\n", b"Cookie: a=b; c\r\n", b"Range: bytes=0-5\r\n", b"If-Match: *\r\n"],
    *[
        b"If-None-Match: *\r\n",
        b"X-Forwarded-For: 1.2.3.4\r\n",
        b"Max-Forwards: 0\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
    ],
)


def _names_and_values(gateways: GatewayPair) -> Iterator[tuple[str, bytes]]:
    for line in _LINES:
        yield f"{line[:60]!r}", gateways.order(more=line)
        yield f"{line[:60]!r} in a read", GET + line + b"\r\n"


def _expectations(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Send the body after the reply 100, at once, and not at all."""
    for value in (b"100-continue", b"100-Continue", b"200-ok", b"", b"100-continue, x"):
        data = gateways.order(headers={b"Expect": value})
        yield single_connection_case(f"Expect {value!r}", data)
        head, _, _ = data.partition(b"\r\n\r\n")
        yield RequestCase(f"Expect {value!r} without a body", (RequestScript((head + b"\r\n\r\n",)),))
        if value.lower() == b"100-continue":
            yield RequestCase(
                "100, then the body", (RequestScript((head + b"\r\n\r\n", data[len(head) + 4 :]), await_answers=(1,)),)
            )
    for bearer in (None, gateways.user(ttl_s=-60), gateways.user()):
        for left in (1, 50, 240):
            for key in (b"k", None):
                yield RequestCase(
                    f"all but {left} bytes", (RequestScript((gateways.order(bearer=bearer, key=key)[:-left],)),)
                )
    yield single_connection_case("Expect of a read", GET + b"Expect: 100-continue\r\n\r\n")
    yield single_connection_case(
        "Expect without a token", gateways.order(headers={b"Expect": b"100-continue"}, bearer=None)
    )
