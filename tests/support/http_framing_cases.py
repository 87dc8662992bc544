"""Valid and invalid requests: split, pipelined, mutated at random places, and cut off by the client."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.support.gateway_pair import SENTINEL, GatewayPair, RequestCase, single_connection_case
from tests.support.raw_http import RequestScript

_GET = b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"


def split_cases(gateways: GatewayPair, rng: Random) -> Iterator[RequestCase]:
    """Send one order split in two at each of its bytes, and split into many segments."""
    bearer = gateways.user()
    length = len(gateways.order(bearer=bearer, key=b"0000"))
    for place in range(1, length):
        yield single_connection_case(
            f"split at {place}", gateways.order(bearer=bearer, key=b"%04d" % place), cuts=[place]
        )
    for number in range(60):
        data = gateways.order(bearer=bearer, key=b"many-%d" % number)
        yield single_connection_case(
            f"split into segments {number}", data, cuts=sorted(rng.sample(range(1, length), rng.randint(2, 30)))
        )
    for number in range(4):
        data = gateways.order(bearer=bearer, key=b"bytes-%d" % number)
        yield single_connection_case(f"byte by byte {number}", data, cuts=range(1, len(data + SENTINEL)))


def _request(gateways: GatewayPair, rng: Random, bearer: bytes) -> bytes:
    key = b"%d" % rng.randint(0, 3)
    body = gateways.body((rng.choice(["a", "b"]), 1)) if rng.random() < 0.8 else gateways.body()
    chunked: dict[bytes, bytes | None] = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
    return rng.choice(
        [
            *[gateways.order(bearer=bearer, key=key, body=body)] * 8,
            gateways.order(bearer=bearer, key=key, body=body[: rng.randint(0, len(body))]),
            gateways.order(bearer=None, key=key, body=body),
            gateways.order(bearer=bearer, key=None, body=body),
            gateways.order(bearer=bearer, key=key, body=body, headers={b"Content-Type": b"text/plain"}),
            gateways.order(bearer=bearer, key=key, body=body, headers={b"Content-Type": b"application/JSON"}),
            gateways.order(bearer=bearer, key=key, body=b"", headers=chunked)
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            gateways.order(bearer=bearer, key=key, body=gateways.body(("gone", 2))),
            gateways.order(bearer=bearer, key=key, body=gateways.body(("nothing", 2))),
            gateways.order(bearer=bearer, key=key, body=body, headers={b"X-Request-Id": b"r-%d" % rng.randint(0, 9)}),
            gateways.order(bearer=bearer, key=key, body=body, headers={b"Expect": b"100-continue"}),
            gateways.order(bearer=bearer, key=key, body=body, line=b"POST /v1/orders?x=y HTTP/1.1"),
            _GET % (b"/v1/sales/" + gateways.sale.encode(), bearer),
            _GET % (b"/v1/variants/a", bearer),
            _GET % (b"/v1/orders?idempotency_key=" + key, bearer),
            _GET % (b"/nowhere", bearer),
            _GET % (b"/v1/orders", bearer),
        ]
    )


def pipeline_cases(gateways: GatewayPair, rng: Random, count: int) -> Iterator[RequestCase]:
    """Send several requests on one connection, split anywhere; some have `Connection: close`."""
    for number in range(count):
        bearer = gateways.user()
        requests = [_request(gateways, rng, bearer) for _ in range(rng.choice([2, 3, 5, 8, 12]))]
        if rng.random() < 0.25:
            place = rng.randrange(len(requests))
            requests[place] = requests[place].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        data = b"".join(requests)
        cuts = sorted(rng.sample(range(1, len(data)), rng.choice([0, 0, 1, 5, 20])))
        yield single_connection_case(f"pipeline {number}", data, cuts=cuts, requests=len(requests))
    for number in range(count // 10):
        bearer = gateways.user()
        orders = [gateways.order(bearer=bearer, key=b"%d" % n) for n in range(rng.randint(1, 4))]
        garbage = rng.choice(
            [b"x\r\n\r\n", b"\0", b"POST /v1/orders\r\n\r\n", gateways.order(headers={b"Content-Length": b"-1"})]
        )
        parts = (b"".join(orders), garbage + gateways.order(bearer=bearer, key=b"after"))
        yield RequestCase(
            f"garbage after orders {number}", (RequestScript(parts, await_answers=(len(orders),)),), len(orders) + 1
        )


_PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"\xff",
    b"\x80",
    b"{",
    b'"',
    b"0",
    b"9",
    b"A",
    b"\r\n\r\n",
    b"; ",
    b"%",
]


def _mutated(rng: Random, data: bytes) -> bytes:
    """Make one to three small changes at random places, more often in the head."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        head = max(data.find(b"\r\n\r\n") + 4, 1)
        place = rng.randrange(len(data)) if rng.random() < 0.3 else rng.randrange(head)
        mutation = rng.randrange(7)
        if mutation == 0:
            data = data[:place] + rng.choice(_PIECES) + data[place + 1 :]
        elif mutation == 1:
            data = data[:place] + rng.choice(_PIECES) + data[place:]
        elif mutation == 2:
            data = data[:place] + data[place + rng.choice([1, 1, 2, 10]) :]
        elif mutation == 3:
            data = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        elif mutation == 4:
            end = data.find(b"\r\n", place)
            data = data[:end] + rng.choice([b"", b"\n", b"\r", b" \r\n", b"\r\n ", b"\r\n\r\n"]) + data[end + 2 :]
        elif mutation == 5:
            lines = data.split(b"\r\n")
            line = rng.randrange(len(lines))
            lines.insert(rng.randrange(len(lines)), lines[line])
            data = b"\r\n".join(lines)
        else:
            lines = data.split(b"\r\n")
            del lines[rng.randrange(len(lines))]
            data = b"\r\n".join(lines)
        if not data:
            return b"\r\n"
    return data


def mutation_cases(gateways: GatewayPair, rng: Random, count: int) -> Iterator[RequestCase]:
    """Send orders with small errors at random places, some followed by a second order."""
    for number in range(count):
        bearer = gateways.user()
        data = _mutated(rng, gateways.order(bearer=bearer))
        if rng.random() < 0.3:
            data += gateways.order(bearer=bearer, key=b"second")
        cuts = [rng.randrange(1, len(data) + 1)] if rng.random() < 0.3 else []
        yield single_connection_case(f"mutation {number}", data, cuts=cuts)


def disconnect_cases(gateways: GatewayPair, rng: Random, count: int) -> Iterator[RequestCase]:
    """Disconnect during or after an order, then repeat it under the same key.

    A client that left during the request has no order yet; one that left afterwards finds its order."""
    for number in range(count):
        bearer = gateways.user()
        data = gateways.order(bearer=bearer)
        place = rng.choice([len(data), len(data) - 1, rng.randrange(1, len(data))])
        cut_off = RequestScript((data[:place],), end=rng.choice(["reset", "close", "half"]))
        yield RequestCase(
            f"disconnect at {place} of {len(data)} {number}", (cut_off, RequestScript((data + SENTINEL,))), 2
        )


def keep_alive_cases(gateways: GatewayPair, rng: Random, count: int) -> Iterator[RequestCase]:
    """Leave the connection open: the gateway does too, or closes it if a request demands this."""
    for number in range(count):
        bearer = gateways.user()
        requests = [_request(gateways, rng, bearer) for _ in range(3)]
        interim = sum(b"100-continue" in request for request in requests)
        script = RequestScript((b"".join(requests) + SENTINEL,), end="keep", answers=4 + interim)
        yield RequestCase(f"keep-alive {number}", (script,), 3)
