"""Bad input gets a clear 4xx problem; no stock is reserved and no row is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import orjson
import pytest
from multidict import CIMultiDict

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.conftest import SECRET
from tests.support.gateway import TestGateway, token
from tests.support.sales import ADDRESS, make_sale, order_body

STOCK = {"a": 50, "b": 20}


@pytest.fixture
async def keys(shop: CliServices, gateway: TestGateway, sale_id: str) -> AsyncIterator[SaleKeys]:
    """A sale that must have taken and written nothing at the end of the test."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None), "b": (20, 255, None)})
    await gateway.services.snapshots.refresh()
    yield keys
    cut = await lua.cut(shop.redis, keys)
    assert (cut.stock, cut.accepted) == (STOCK, 0)
    assert [entry async for entry in lua.iter_stream(shop.redis, keys)] == []
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == 0


def line(**changes: Any) -> Callable[[str], dict[str, Any]]:
    return lambda sale_id: order_body(sale_id) | {"lines": [{"sku": "a", "quantity": 1, **changes}]}


def body(**changes: Any) -> Callable[[str], dict[str, Any]]:
    return lambda sale_id: order_body(sale_id, ("a", 1)) | changes


def address(**changes: Any) -> Callable[[str], dict[str, Any]]:
    return body(ship_to=[ADDRESS | changes])


INVALID_ORDERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "an unknown field": (body(colour="red"), ""),
    "an unknown field in a line": (line(colour="red"), "/lines/0"),
    "no lines": (body(lines=[]), "/lines"),
    "lines that are no list": (body(lines={"sku": "a"}), "/lines"),
    "a quantity of 0": (line(quantity=0), "/lines/0/quantity"),
    "a negative quantity": (line(quantity=-1), "/lines/0/quantity"),
    "half a unit": (line(quantity=1.5), "/lines/0/quantity"),
    "a quantity of 10^12": (line(quantity=10**12), "/lines/0/quantity"),
    "a quantity above the limit": (line(quantity=100_001), "/lines/0/quantity"),
    "a quantity as text": (line(quantity="1"), "/lines/0/quantity"),
    "a quantity that is null": (line(quantity=None), "/lines/0/quantity"),
    "true units": (line(quantity=True), "/lines/0/quantity"),
    "an unknown SKU": (line(sku="nothing-like-it"), "/lines/0/sku"),
    "a SKU with blanks": (line(sku="a b"), "/lines/0/sku"),
    "a SKU with a line end": (line(sku="a\n"), "/lines/0/sku"),
    "no SKU": (body(lines=[{"quantity": 1}]), "/lines/0"),
    "an address out of range": (line(ship_to=1), "/lines/0/ship_to"),
    "a negative address": (line(ship_to=-1), "/lines/0/ship_to"),
    "a split that does not add up": (line(quantity=3, ship_to=[{"address": 0, "quantity": 2}]), "/lines/0/ship_to"),
    "a split over an unknown address": (
        line(quantity=2, ship_to=[{"address": 4, "quantity": 2}]),
        "/lines/0/ship_to/0/address",
    ),
    "a split that names an address twice": (
        line(quantity=2, ship_to=[{"address": 0, "quantity": 1}] * 2),
        "/lines/0/ship_to",
    ),
    "an empty split": (line(ship_to=[]), "/lines/0/ship_to"),
    "no address": (body(ship_to=[]), "/ship_to"),
    "too many addresses": (body(ship_to=[ADDRESS] * 51), "/ship_to"),
    "an address without a name": (address(name=""), "/ship_to/0/name"),
    "an address with a NUL": (address(line="a\0b"), "/ship_to/0/line"),
    "an address with a line end": (address(line="street\n"), "/ship_to/0/line"),
    "an address line that is too long": (address(line="x" * 201), "/ship_to/0/line"),
    "an unknown country": (address(country="China"), "/ship_to/0/country"),
    "a malformed phone": (address(phone="call me"), "/ship_to/0/phone"),
    "payments that do not add up": (body(payments=[{"method": "alipay", "amount": 99}]), "/payments"),
    "an unknown method": (body(payments=[{"method": "shells", "amount": 100}]), "/payments/0/method"),
    "an unknown currency": (
        body(payments=[{"method": "alipay", "amount": 100, "currency": "XXQ"}]),
        "/payments/0/currency",
    ),
    "another currency": (
        body(payments=[{"method": "alipay", "amount": 100, "currency": "GBP"}]),
        "/payments/0/currency",
    ),
    "a payment of nothing": (body(payments=[{"method": "alipay", "amount": 0}]), "/payments/0/amount"),
    "too many payments": (body(payments=[{"method": "alipay", "amount": 10}] * 10), "/payments"),
    "no sale": (lambda sale_id: {"lines": order_body(sale_id, ("a", 1))["lines"], "ship_to": [ADDRESS]}, ""),
    "a sale id with strange characters": (body(sale_id="Sale Of Shoes!"), "/sale_id"),
    "a list": (lambda sale_id: [order_body(sale_id, ("a", 1))], ""),
    "a number": (lambda sale_id: 7, ""),
}


@pytest.mark.parametrize("name", INVALID_ORDERS)
async def test_order_with_wrong_value_names_its_pointer(
    gateway: TestGateway, sale_id: str, keys: SaleKeys, name: str
) -> None:
    build, pointer = INVALID_ORDERS[name]
    answer = await gateway.order(build(sale_id))
    assert (answer.status, answer.code) == (422, "invalid"), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.body["errors"]]
    assert answer.body["detail"]


async def test_order_with_too_many_lines_is_invalid(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    answer = await gateway.order(order_body(sale_id, *[("a", 1)] * 1_001))
    assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "/lines")


async def test_order_with_two_errors_names_both(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    order = order_body(sale_id) | {"lines": [{"sku": "x", "quantity": 1}, {"sku": "a", "quantity": 1, "ship_to": 5}]}
    answer = await gateway.order(order)
    assert [error["pointer"] for error in answer.body["errors"]] == ["/lines/0/sku", "/lines/1/ship_to"]


async def test_one_sku_on_two_lines_is_added_up(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    answer = await gateway.order(order_body(sale_id, ("b", 12), ("b", 12)))
    assert (answer.status, answer.code) == (409, "sold_out")


INVALID_BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "bad_request"),
    "not JSON": (b"sale_id=1&sku=a", 400, "bad_request"),
    "half of it": (b'{"sale_id": "x", "lines": [', 400, "bad_request"),
    "not UTF-8": (b'{"sale_id": "\xff\xfe"}', 400, "bad_request"),
    "half a surrogate pair": (b'{"sale_id": "\\ud800"}', 400, "bad_request"),
    "two documents": (b"{}{}", 422, "invalid"),
    "NaN": (b'{"sale_id": NaN}', 400, "bad_request"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, 422, "invalid"),
    "deep nesting in a field": (b'{"lines": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 422, "invalid"),
    "deep nesting in an unknown field": (b'{"x": ' + b'{"x":' * 30_000 + b"1" + b"}" * 30_001, 422, "invalid"),
    "null": (b"null", 422, "invalid"),
    "an enormous number": (b'{"lines": [{"sku": "a", "quantity": ' + b"9" * 5_000 + b"}]}", 422, "invalid"),
}


@pytest.mark.parametrize("name", INVALID_BODIES)
async def test_body_without_order_is_refused(gateway: TestGateway, sale_id: str, keys: SaleKeys, name: str) -> None:
    data, status, code = INVALID_BODIES[name]
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await gateway.call("POST", "/v1/orders", headers=headers, data=data)
    assert (answer.status, answer.code) == (status, code), answer.text


async def test_body_over_limit_is_body_too_large(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await gateway.call("POST", "/v1/orders", headers=headers, data=b"[" + b" " * 300_000 + b"]")
    assert (answer.status, answer.code) == (413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 10_000

    answer = await gateway.call("POST", "/v1/orders", headers=headers, data=chunks())
    assert (answer.status, answer.code) == (413, "body_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_body_of_other_media_type_is_refused(
    gateway: TestGateway, sale_id: str, keys: SaleKeys, headers: dict[str, str]
) -> None:
    data = orjson.dumps(order_body(sale_id, ("a", 1)))
    answer = await gateway.call("POST", "/v1/orders", headers=headers | {"Idempotency-Key": "k"}, data=data)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("key", [None, "", "x" * 129, "with blank", "umläut"])
async def test_idempotency_key_missing_or_malformed_is_refused(
    gateway: TestGateway, sale_id: str, keys: SaleKeys, key: str | None
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await gateway.call("POST", "/v1/orders", headers=headers, json=order_body(sale_id, ("a", 1)))
    assert answer.status == (400 if key is None else 422)
    assert "Idempotency-Key" in answer.body["detail"]


async def test_two_idempotency_keys_are_refused(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    headers = CIMultiDict({"Authorization": f"Bearer {token(gateway.settings)}"})
    headers.add("Idempotency-Key", "one")
    headers.add("Idempotency-Key", "two")
    url = f"{gateway.base}/v1/orders"
    async with gateway.client.post(url, headers=headers, json=order_body(sale_id, ("a", 1))) as answer:
        assert answer.status == 400


def sign_claims(**changes: Any) -> str:
    claims = {"sub": "user", "aud": "floodgate", "iss": "floodgate", "exp": 4_000_000_000} | changes
    return jwt.encode(claims, SECRET, "HS256", headers={"kid": "test"})


TOKENS: dict[str, Callable[[Settings], str]] = {
    "nothing": lambda settings: "",
    "no token": lambda settings: "Bearer ",
    "another scheme": lambda settings: "Basic dXNlcjpwYXNz",
    "not a token": lambda settings: "Bearer abc.def.ghi",
    "an expired token": lambda settings: f"Bearer {token(settings, ttl_s=-60)}",
    "a changed token": lambda settings: f"Bearer {token(settings)[:-4]}AAAA",
    "another key": lambda settings: (
        "Bearer "
        + jwt.encode(
            {"sub": "user", "aud": "floodgate", "iss": "floodgate", "exp": 4e9},
            "x" * 40,
            "HS256",
            headers={"kid": "test"},
        )
    ),
    "an unknown key": lambda settings: (
        "Bearer "
        + jwt.encode({"sub": "user", "aud": "floodgate", "exp": 4e9}, SECRET, "HS256", headers={"kid": "other"})
    ),
    "no signature": lambda settings: (
        "Bearer "
        + jwt.encode(
            {"sub": "user", "aud": "floodgate", "iss": "floodgate", "exp": 4e9}, None, "none", headers={"kid": "test"}
        )
    ),
    "a staff token": lambda settings: f"Bearer {token(settings, roles=['operator'])}",
    "another issuer": lambda settings: f"Bearer {sign_claims(iss='somebody')}",
    "no end": lambda settings: (
        "Bearer "
        + jwt.encode({"sub": "user", "aud": "floodgate", "iss": "floodgate"}, SECRET, "HS256", headers={"kid": "test"})
    ),
    "a user id with strange characters": lambda settings: f"Bearer {sign_claims(sub='a b')}",
    "a user id that is a number": lambda settings: f"Bearer {sign_claims(sub=7)}",
    "an enormous token": lambda settings: "Bearer " + "x" * 5_000,
}


@pytest.mark.parametrize("name", TOKENS)
async def test_invalid_token_is_unauthorized(gateway: TestGateway, sale_id: str, keys: SaleKeys, name: str) -> None:
    authorization = TOKENS[name](gateway.settings)
    headers = {"Idempotency-Key": "k"} | ({"Authorization": authorization} if authorization else {})
    for _ in range(2):  # a refused token must not be cached as valid
        answer = await gateway.call(
            "POST", "/v1/orders", user=None, headers=headers, json=order_body(sale_id, ("a", 1))
        )
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_order_for_unknown_sale_is_not_found(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    answer = await gateway.order(order_body("no-such-sale", ("a", 1)))
    assert (answer.status, answer.code) == (404, "not_found")


async def test_order_for_draft_sale_is_not_found(
    shop: CliServices, gateway: TestGateway, sale_prefix: str, keys: SaleKeys
) -> None:
    await make_sale(shop, f"{sale_prefix}-draft", {"a": (50, 100, None)}, opened=False)
    answer = await gateway.order(order_body(f"{sale_prefix}-draft", ("a", 1)))
    assert (answer.status, answer.code) == (404, "not_found")
    assert (await gateway.call("GET", f"/v1/sales/{sale_prefix}-draft", user=None)).status == 404


async def test_wrong_path_method_or_parameter_is_problem(gateway: TestGateway, keys: SaleKeys) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/v1/orders", 405, "method_not_allowed"),
        ("PATCH", "/v1/orders/x", 405, "method_not_allowed"),
        ("GET", "/v1/orders/not-a-uuid", 422, "invalid"),
        ("GET", "/v1/orders?limit=0", 422, "invalid"),
        ("GET", "/v1/orders?limit=many", 422, "invalid"),
        ("GET", "/v1/orders?limit=1&limit=2", 400, "bad_request"),
        ("GET", "/v1/orders?cursor=%ff", 422, "invalid"),
        ("GET", "/v1/variants?cursor=!!", 422, "invalid"),
    ):
        answer = await gateway.call(method, path)
        assert (answer.status, answer.code) == (status, code), (method, path, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
    answer = await gateway.call("DELETE", "/v1/orders")
    assert answer.headers["Allow"] == "GET,HEAD,POST"
