"""Order bodies: valid and refused orders, and bodies that are no orders. All randomness is seeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.support.gateway_pair import SENTINEL, GatewayPair, RequestCase, single_connection_case
from tests.support.raw_http import ORDER_MARK, RequestScript
from tests.support.sales import ADDRESS, order_body

_PRICES = {"a": 100, "b": 255, "few": 10, "gone": 50}
_TEXTS = [
    "Wenyi West Road 969",
    "文一西路969号",
    "O'Brien",
    'a "quoted" name',
    "\u3000",
    "👍🏽 emoji",
    "e\u0301",
    "\u202eleft",
    "x" * 200,
]
_BAD_TEXTS = ["", "x" * 201, "a\0b", "line\nend", "\x7f", "\t", "\ud800"]
_WRONG_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.0,
    1.5,
    1e300,
    10**30,
    "1",
    "",
    [],
    {},
    [[]],
    "x" * 300,
    "\0",
    {"a": 1},
]


def valid_order(rng: Random, sale: str) -> dict[str, Any]:
    """Generate a valid order."""
    addresses = [
        {
            **ADDRESS,
            "name": rng.choice(_TEXTS),
            "line": rng.choice(_TEXTS),
            "phone": rng.choice(["+86 138 0000", "(0571) 8888-0000", "1380"]),
            "country": rng.choice(["CN", "DE"]),
        }
        for _ in range(rng.choice([1, 1, 1, 2, 5]))
    ]
    for address in addresses:
        for name in ("province", "district", "postcode"):
            if rng.random() < 0.3:
                del address[name]
    lines = []
    total = 0
    for _ in range(rng.choice([1, 1, 2, 3, 10, 60])):
        sku, quantity = rng.choice("ab"), rng.randint(1, 5)
        line: dict[str, Any] = {"sku": sku, "quantity": quantity}
        if rng.random() < 0.4:
            line["ship_to"] = rng.randrange(len(addresses))
        elif rng.random() < 0.2 and quantity > 1 and len(addresses) > 1:
            line["ship_to"] = [{"address": 0, "quantity": 1}, {"address": 1, "quantity": quantity - 1}]
        total += _PRICES[sku] * quantity
        lines.append(line)
    order: dict[str, Any] = {"sale_id": sale, "lines": lines, "ship_to": addresses}
    if rng.random() < 0.5:
        first = rng.randint(1, total - 1)
        payments = [{"method": "alipay", "amount": total - first}, {"method": "wechatpay", "amount": first}]
        order["payments"] = rng.choice([payments, [{"method": "cod", "amount": total, "currency": "CNY"}], []])
    return order


def _list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _list_paths(child, (*path, key))


def mutated_order(rng: Random, sale: str) -> dict[str, Any]:
    """Generate a valid order and change one or two of its values. Few of the results are still valid."""
    order = valid_order(rng, sale)
    for _ in range(rng.choice([1, 1, 2])):
        paths = list(_list_paths(order))
        path = rng.choice([path for path in paths if rng.random() < 0.3 or len(path) == 1] or paths)
        parent = order
        for key in path[:-1]:
            parent = parent[key]
        mutation = rng.randrange(4)
        if mutation == 0:
            parent.pop(path[-1])
        elif mutation == 1 and isinstance(parent, dict):
            parent[rng.choice(["colour", "sale_Id", "", "ü", "lines"])] = rng.choice(_WRONG_VALUES)
        elif mutation == 2:
            parent[path[-1]] = rng.choice(_BAD_TEXTS)
        else:
            parent[path[-1]] = rng.choice(_WRONG_VALUES)
    return order


def encode_as_json(rng: Random, value: Any) -> bytes:
    """Encode as JSON with random white space, escapes and order of members."""
    text = json.dumps(
        value,
        indent=rng.choice([None, None, None, 2, "\t"]),
        ensure_ascii=rng.random() < 0.4,
        separators=rng.choice([None, (",", ":"), (" , ", " :\r\n")]),
        sort_keys=all(isinstance(key, str) for key in value) and rng.random() < 0.3,
    )
    text = rng.choice(["", "", "", " ", "\r\n", "\ufeff"]) + text + rng.choice(["", "", "\n", "  ", "\0", "x"])
    return text.encode("utf-8", "surrogatepass")


def random_order_cases(gateways: GatewayPair, rng: Random, count: int) -> Iterator[RequestCase]:
    """Send one valid or mutated order per connection, to sales in each state."""
    for number in range(count):
        make = rng.choice([valid_order, mutated_order, mutated_order])
        state = rng.choice(["", "", "", "", "", "", "-paused", "-closed", "-later", "-draft", "-none"])
        body = encode_as_json(rng, make(rng, gateways.sale + state))
        kind = rng.choice(
            [b"application/json", b"application/json", b"application/json; charset=utf-8", b"Application/Json"]
        )
        yield single_connection_case(
            f"{make.__name__} {number}", gateways.order(body=body, headers={b"Content-Type": kind})
        )


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "a blank": lambda good: b" ",
    "half": lambda good: good[: len(good) // 2],
    "all but the end": lambda good: good[:-1],
    "twice": lambda good: good * 2,
    "a comma more": lambda good: good[:-1] + b",}",
    "no JSON": lambda good: b"sale_id=1",
    "UTF-16": lambda good: good.decode().encode("utf-16"),
    "a mark of order": lambda good: b"\xef\xbb\xbf" + good,
    "not UTF-8": lambda good: good.replace(b"Zhang", b"Zh\xffng"),
    "an overlong NUL": lambda good: good.replace(b"Zhang", b"Zh\xc0\x80ng"),
    "half a pair": lambda good: good.replace(b"Zhang", b"\\ud83d"),
    "a pair": lambda good: good.replace(b"Zhang", b"\\ud83d\\ude00"),
    "a raw control": lambda good: good.replace(b"Zhang", b"Zh\x01ng"),
    "NaN": lambda good: good.replace(b":1", b":NaN"),
    "Infinity": lambda good: good.replace(b":1", b":-Infinity"),
    "1.0": lambda good: good.replace(b":1", b":1.0"),
    "1e0": lambda good: good.replace(b":1", b":1e0"),
    "01": lambda good: good.replace(b":1", b":01"),
    "digits": lambda good: good.replace(b":1", b":" + b"9" * 4_000),
    "e9999": lambda good: good.replace(b":1", b":1e9999"),
    "2^63": lambda good: good.replace(b":1", b":9223372036854775808"),
    "a field twice": lambda good: good[:-1] + b',"lines":[{"sku":"b","quantity":2}]}',
    "the sale twice": lambda good: good[:-1] + b',"sale_id":"other"}',
    "comments": lambda good: b"/* */" + good,
    "deep": lambda good: b"[" * 60_000 + b"]" * 60_000,
    "deep in it": lambda good: good[:-1] + b',"payments":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep and unknown": lambda good: good[:-1] + b',"x":' + b'{"x":' * 30_000 + b"1" + b"}" * 30_001,
    "many lines": lambda good: good.replace(b"[{", b"[" + b'{"sku":"a","quantity":1},' * 1_000 + b"{", 1),
    "as many as can be": lambda good: good.replace(b"[{", b"[" + b'{"sku":"a","quantity":1},' * 999 + b"{", 1),
    "null": lambda good: b"null",
    "text": lambda good: b'"order"',
    "list": lambda good: b"[" + good + b"]",
    "NULs": lambda good: b"\0" * 50,
}


def body_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Send each of `BODIES`, then a valid order under the same key, which must still be unused."""
    for name, change in BODIES.items():
        bearer = gateways.user()
        data = gateways.order(body=change(gateways.body()), bearer=bearer)
        yield single_connection_case(
            f"body: {name}", data + gateways.order(bearer=bearer, body=gateways.body(("b", 2))), requests=2
        )


def refusal_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Cause each reply that the state of a sale or a key leads to, on one connection and on several."""
    for state in ("-paused", "-closed", "-later", "-draft", "-none", "!", ""):
        yield single_connection_case(
            f"sale {state!r}", gateways.order(body=json.dumps(order_body(gateways.sale + state, ("a", 1))).encode())
        )
    for name, lines in {
        "sold out": [("gone", 2)],
        "sold out in the second line": [("a", 1), ("gone", 5)],
        "over the limit": [("few", 4)],
        "over the limit in two lines": [("few", 2), ("few", 2)],
        "unknown": [("nothing", 1)],
        "more than a line may have": [("a", 100_001)],
        "sold out and over the limit": [("gone", 3), ("few", 9)],
    }.items():
        yield single_connection_case(name, gateways.order(body=gateways.body(*lines)))
    for count in range(2, 6):
        bearer = gateways.user()
        orders = [gateways.order(bearer=bearer, key=b"%d" % n, body=gateways.body(("few", 1))) for n in range(count)]
        yield single_connection_case(f"{count} orders against a limit of 3", b"".join(orders), requests=count)
    bearer, other = gateways.user(), gateways.user()
    first = gateways.order(bearer=bearer)
    changed = gateways.order(bearer=bearer, body=gateways.body(("a", 2)))
    bad = gateways.order(bearer=bearer, body=gateways.body(("nothing", 2)))
    spaced = gateways.order(bearer=bearer, body=gateways.body().replace(b",", b" ,\n"))
    same_key = gateways.order(bearer=other, body=gateways.body(("a", 2)))
    later = gateways.order(bearer=bearer, body=json.dumps(order_body(gateways.sale + "-later", ("a", 1))).encode())
    repeats = (first, first, changed, spaced, bad, same_key, first, later)
    yield single_connection_case("repeats on one connection", b"".join(repeats), requests=len(repeats))
    scripts = tuple(RequestScript((data + SENTINEL,)) for data in repeats)
    yield RequestCase("repeats on a connection each", scripts, len(repeats))


def read_cases(gateways: GatewayPair) -> Iterator[RequestCase]:
    """Send an order, and read it on the same connection as its customer and as another one."""
    for number in range(40):
        bearer, other = gateways.user(), gateways.user()
        read = b"GET /v1/orders/" + ORDER_MARK + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        key = b"GET /v1/orders?idempotency_key=k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        order = gateways.order(bearer=bearer)
        parts = (order, read % bearer, key % bearer + order, (read % other) + (key % other) + read % b"x" + SENTINEL)
        if number % 2:
            parts = (order + key % bearer, read % bearer * 3, order + order, read % other + SENTINEL)
        waits = (2, 5, 7) if number % 2 else (1, 2, 4)
        yield RequestCase(f"read {number}", (RequestScript(parts, await_answers=waits),), 8)
