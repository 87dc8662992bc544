"""Reads that the gateway answers from memory, in their common form and in every uncommon one."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.gateway_pair import GatewayPair, RequestCase, single_connection_case
from tests.support.raw_http import ORDER_MARK, RequestScript

_UNKNOWN_ORDER = b"01900000-0000-7000-8000-000000000000"
_LINES = (b"GET %b HTTP/1.1", b"GET %b HTTP/1.0", b"GET http://x%b HTTP/1.1", b"POST %b HTTP/1.1")
_HEADERS = (
    b"If-None-Match: *",
    b'If-None-Match: "no", W/"other"',
    b"If-None-Match:",
    b"If-None-Match: *\r\nIf-None-Match: *",
    b"if-none-match: *",
    b"If-None-Match: \xff",
    b"X-Request-Id: mine-1",
    b"X-Request-Id: not valid",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Content-Length: 0",
    b"Content-Length: 3\r\n\r\nabc",
    b"Transfer-Encoding: chunked\r\n\r\n0",
    b"Expect: 100-continue",
    b"Expect: else",
    b"Range: bytes=0-3",
    b"Accept-Encoding: gzip, br",
    b"Upgrade: websocket\r\nConnection: upgrade",
    b"X-Padded: value \t",
    b"Host: second.example",
)


def _targets(gateways: GatewayPair) -> list[bytes]:
    sale = f"/v1/sales/{gateways.sale}"
    texts = ["/v1/sales", "/v1/sales/", "/v1/sales?", "/v1/sales?limit=2", "/v1/sales?cursor=a", "/v1/sales?x=1"]
    texts += [
        f"{sale}{state}{end}" for state in ("", "-draft", "-paused", "-closed", "-later") for end in ("", "/offers")
    ]
    queries = ("", "?", "?cursor=a", "?cursor=few", "?cursor=gone", "?cursor=zzz", "?cursor=", "?cursor=a&cursor=b")
    queries += ("?cursor=%61", "?limit=2", "?limit=0", "?limit=x", "?cursor=b&limit=1", "?x=1", "?cursor=-a", "#part")
    texts += [f"{sale}/offers{query}" for query in queries]
    texts += [f"{sale}/", f"{sale}//offers", f"{sale}/offers/", f"{sale}%2Foffers", f"{sale}/offers;x", "/v1//sales"]
    texts += ["/v1/sales/none", "/v1/sales/none/offers", "/v1/sales/UPPER", "/v1/sales/UPPER/offers", "/v1/sales/a%20b"]
    skus = ("a", "none", "%61", "a/", "a?", "a?x=1", "-a", "a" * 64, "a" * 65, "a%2F", "a;b", "a.b", "")
    texts += [f"/v1/variants/{sku}" for sku in skus]
    order = _UNKNOWN_ORDER.decode()
    ids = (order, order.upper(), order.replace("-", ""), f"{{{order}}}", f"{order}?x=1", f"{order}/", order[:-1], "x")
    texts += [f"/v1/orders/{order_id}" for order_id in ids]
    return [text.encode() for text in texts]


def memory_read_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Read every target with every request line, some with every header and token, and many in one packet."""
    bearer = b"Authorization: Bearer " + gateways.user() + b"\r\n"
    bearers = {
        b"customer": bearer,
        b"staff": b"Authorization: Bearer " + gateways.user(roles=["support"]) + b"\r\n",
        b"expired": b"Authorization: Bearer " + gateways.user(ttl_s=-3_600) + b"\r\n",
        b"basic": b"Authorization: Basic eA==\r\n",
    }
    targets = _targets(gateways)
    for target in targets:
        for line in _LINES:
            yield single_connection_case(f"{line!r} {target!r}", line % target + b"\r\nHost: x\r\n\r\n")
    for target in (target for target in targets if target.startswith(b"/v1/orders/")):
        for name, authorization in bearers.items():
            request = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, authorization)
            yield single_connection_case(f"{target!r}, token: {name!r}", request)
    sale = f"/v1/sales/{gateways.sale}".encode()
    pages = (b"/v1/sales", sale, sale + b"/offers", b"/v1/variants/a", b"/v1/variants/none")
    for target in (*pages, b"/v1/orders/" + _UNKNOWN_ORDER):
        yield single_connection_case(f"{target!r} without Host", b"GET %b HTTP/1.1\r\n\r\n" % target)
        for header in _HEADERS:
            request = b"GET %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n\r\n" % (target, bearer, header)
            yield single_connection_case(f"{target!r} {header!r}", request)
    plain = [b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target for target in targets]
    yield single_connection_case("all in one packet", b"".join(plain), requests=len(plain))
    yield single_connection_case("in small pieces", plain[0] * 3, cuts=range(0, 3 * len(plain[0]), 7), requests=3)


def own_order_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Read an order that was just placed, with and without its content at hand."""
    for header in (b"", b"If-None-Match: *\r\n", b'If-None-Match: "no"\r\n'):
        bearer = gateways.user()
        read = b"GET /v1/orders/%b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (ORDER_MARK, bearer)
        parts = (gateways.order(bearer=bearer), (read + header + b"\r\n") * 2)
        yield RequestCase(f"own order {header!r}", (RequestScript(parts, await_answers=(1,)),), 3)
