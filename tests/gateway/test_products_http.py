"""Products over HTTP: staff make and price them, customers read those on sale in their language."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from commerce.kernel.clock import from_ms
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.product_shop import add_categories
from tests.support.sales import eventually

SHIRT: dict[str, Any] = {
    "texts": {"en": {"name": "Shirt", "description": "Cool in summer"}, "zh-CN": {"name": "衬衫"}},
    "category_id": "shirts",
    "brand": "Acme",
    "attributes": {"fabric": "linen", "color": ["red"], "organic": True},
    "options": ["size"],
    "reason": "new season",
}


def variant(size: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"Shirt {size}",
        "price": 1000,
        "currency": "CNY",
        "option_values": {"size": size},
        "reason": "new season",
        **more,
    }


@pytest.fixture
async def shirts(shop: CliServices, gateway: TestGateway) -> TestGateway:
    await add_categories(shop)
    return gateway


async def staff(gateway: TestGateway, method: str, path: str, body: Any = None) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin{path}", user="ann", roles=["catalog"], json=body)


async def read(gateway: TestGateway, path: str, **headers: str) -> GatewayResponse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.call("GET", f"/v1{path}", user=None, headers=sent)


async def publish_shirt(gateway: TestGateway) -> GatewayResponse:
    assert (await staff(gateway, "PUT", "/products/shirt", SHIRT)).status == 200
    for size in "ml":
        added = await staff(gateway, "PUT", f"/products/shirt/variants/shirt-{size}", variant(size))
        assert added.status == 200, added.text
    return await staff(
        gateway, "POST", "/products/shirt/publish", {"version": 3, "reason": "photographed", "anyway": "it is a test"}
    )


async def test_product_is_public_from_its_publication_to_its_end(shirts: TestGateway) -> None:
    assert (await read(shirts, "/products/shirt")).status == 404
    published = await publish_shirt(shirts)
    assert (published.status, published.body["status"], published.body["version"]) == (200, "on_sale", 4)

    async def has_status(status: int, *paths: str) -> bool:
        return all([(await read(shirts, path)).status == status for path in paths])

    await eventually(lambda: has_status(200, "/products/shirt", "/variants/shirt-m"), timeout_s=20)
    assert (await staff(shirts, "POST", "/products/shirt/retire", {"version": 4, "reason": "sold out"})).status == 200
    await eventually(lambda: has_status(404, "/products/shirt", "/variants/shirt-m"), timeout_s=20)
    assert (await read(shirts, "/products")).body["items"] == []
    changes = (await staff(shirts, "GET", "/products/shirt/changes?limit=2")).body
    assert [(change["action"], change["actor"], change["reason"]) for change in changes["items"]] == [
        ("retired", "staff ann", "sold out"),
        ("published", "staff ann", "photographed"),
    ]
    older = (await staff(shirts, "GET", f"/products/shirt/changes?cursor={changes['next']}")).body["items"]
    assert [change["version"] for change in older] == [3, 2, 1]


async def test_product_is_read_in_the_language_of_the_reader(shirts: TestGateway) -> None:
    await publish_shirt(shirts)
    for wanted, language, name in (
        ("zh", "zh-CN", "衬衫"),
        ("fr;q=0.9, zh-TW;q=0.5", "zh-CN", "衬衫"),
        ("de", "en", "Shirt"),
        ("", "en", "Shirt"),
        ("zh;q=nonsense,,;;", "en", "Shirt"),
    ):
        answer = await read(shirts, "/products/shirt", Accept_Language=wanted)
        assert (answer.body["language"], answer.body["name"]) == (language, name), wanted
        assert (answer.headers["Content-Language"], answer.headers["Vary"]) == (language, "Accept-Language")
        listed = await read(shirts, "/products?category_id=shirts", Accept_Language=wanted)
        assert [product["name"] for product in listed.body["items"]] == [name]
    same = await read(shirts, "/products/shirt", If_None_Match=answer.headers["ETag"])
    assert (same.status, same.headers["Content-Language"]) == (304, "en")
    assert [variant["option_values"] for variant in answer.body["variants"]] == [{"size": "l"}, {"size": "m"}]
    assert (answer.body["attributes"], answer.body["options"]) == (SHIRT["attributes"], ["size"])
    assert (await read(shirts, "/products?category_id=mugs")).body["items"] == []


async def test_changes_from_an_older_version_and_twins_are_conflicts(shirts: TestGateway) -> None:
    await publish_shirt(shirts)
    stale = await staff(shirts, "PATCH", "/products/shirt", {"brand": None, "version": 1, "reason": "none"})
    assert (stale.status, stale.code, stale.body["version"]) == (409, "version_conflict", 4)
    changed = await staff(shirts, "PATCH", "/products/shirt", {"brand": None, "version": 4, "reason": "none"})
    assert (changed.status, changed.body["brand"], changed.body["texts"]["zh-CN"]["name"]) == (200, None, "衬衫")
    twin = await staff(shirts, "PUT", "/products/shirt/variants/twin", variant("m"))
    assert (twin.status, twin.code, twin.body["sku"]) == (409, "duplicate_variant", "shirt-m")
    other = await staff(shirts, "PUT", "/products/none/variants/shirt-m", variant("m"))
    assert other.status == 404
    listed = (await staff(shirts, "GET", "/products?status=on_sale")).body["items"]
    assert [(item["product_id"], item["variant_count"], item["min_price"]) for item in listed] == [("shirt", 2, 1000)]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/products/shirt", {**SHIRT, "attributes": {"fabric": 7}}, "/attributes/fabric"),
        ("/products/shirt", {**SHIRT, "attributes": {"Fabric": "linen"}}, "/attributes"),
        ("/products/shirt", {**SHIRT, "attributes": {"sleeve/long": "x"}}, "/attributes/sleeve~1long"),
        ("/products/shirt", {**SHIRT, "attributes": {"fabric": None}}, "/attributes/fabric"),
        ("/products/shirt", {**SHIRT, "texts": {}}, "/texts"),
        ("/products/shirt", {**SHIRT, "texts": {"english": {"name": "x"}}}, "/texts"),
        ("/products/shirt", {**SHIRT, "options": ["size"] * 4}, "/options"),
        ("/products/shirt", {**SHIRT, "colour": "red"}, ""),
        ("/products/coat/variants/coat-m", variant("m", barcode="4006381333932"), ""),
        ("/products/coat/variants/coat-m", variant("m", barcode="12"), ""),
        ("/products/coat/variants/coat-m", variant("m", price=0), ""),
        ("/products/coat/variants/coat-m", variant("xxl"), "/option_values/size"),
    ],
)
async def test_faulty_body_is_refused_with_a_pointer(
    shirts: TestGateway, path: str, body: dict[str, Any], pointer: str
) -> None:
    assert (await staff(shirts, "PUT", "/products/coat", SHIRT)).status == 200
    answer = await staff(shirts, "PUT", path, body)
    assert (answer.status, answer.code) == (422, "invalid"), answer.text
    assert [error["pointer"] for error in answer.body["errors"]] == [pointer], answer.text
    if body.get("barcode") == "4006381333932":
        assert "the check digit of 400638133393 is 1" in answer.text


async def test_price_is_set_planned_and_cancelled(shop: CliServices, shirts: TestGateway) -> None:
    await publish_shirt(shirts)
    new = {"price": 900, "currency": "CNY", "reason": "winter"}
    assert (await staff(shirts, "POST", "/variants/shirt-m/prices", new)).body["price"] == 900
    starts_at = (from_ms(shop.clock.now_ms()) + timedelta(days=1)).isoformat()
    planned = await staff(shirts, "POST", "/variants/shirt-m/prices", {**new, "price": 800, "starts_at": starts_at})
    assert (planned.status, planned.body["status"]) == (201, "planned")
    path = f"/planned-prices/{planned.body['plan_id']}/cancel"
    assert (await staff(shirts, "POST", path, {"reason": "no winter"})).body["status"] == "cancelled"
    plans = (await staff(shirts, "GET", "/variants/shirt-m/planned-prices")).body["items"]
    assert [(plan["price"], plan["end_reason"]) for plan in plans] == [(800, "no winter")]
    changes = (await staff(shirts, "GET", "/variants/shirt-m/prices")).body["items"]
    assert [(change["price"], change["reason"]) for change in changes] == [(900, "winter"), (1000, "new season")]
    past = await staff(shirts, "POST", "/variants/shirt-m/prices", {**new, "starts_at": "2020-01-01T00:00:00Z"})
    assert (past.status, past.code) == (422, "invalid")
    for body in ({**new, "starts_at": "0001-01-01T00:00:00Z"}, {**new, "price": 0}, {"price": 900}):
        assert (await staff(shirts, "POST", "/variants/shirt-m/prices", body)).status == 422


async def test_customers_and_other_staff_change_no_products(shirts: TestGateway) -> None:
    for roles, status in (([], 401), (["warehouse"], 403)):
        answer = await shirts.call("PUT", "/v1/admin/products/shirt", roles=roles, json=SHIRT)
        assert answer.status == status
