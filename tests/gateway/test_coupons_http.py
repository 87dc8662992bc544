"""Coupons over HTTP: for staff, in orders and in quotes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from config.settings import Settings
from gateway.auth import build_issued_codes
from ops.services import CliServices
from tests.support.coupons import PROMOTION, make_coupon, make_promotion
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, run_workers
from tests.support.sales import eventually, make_sale, order_body

COUPON = {"code": "TEN", "promotion_id": PROMOTION, "units": 2}


async def staff(gateway: TestGateway, method: str, path: str, **kwargs: Any) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin/sales/{path}", user="ann", roles=["sales"], **kwargs)


@pytest.fixture
async def sale(shop: CliServices, gateway: TestGateway, sale_id: str) -> str:
    """A sale of one SKU with two coupons TEN, one per customer."""
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await make_coupon(shop, sale_id, "TEN", 2)
    await gateway.services.snapshots.refresh()
    return sale_id


async def test_staff_create_change_and_issue_coupon(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await make_promotion(shop, sale_id)
    path = f"{sale_id}/coupons"
    headers = {"Idempotency-Key": "key"}
    for _ in range(2):
        created = await staff(gateway, "POST", path, json=COUPON, headers=headers)
        assert (created.status, created.headers["Location"]) == (201, f"/v1/admin/sales/{path}/TEN")
    changed = await staff(gateway, "PATCH", f"{path}/TEN", json={"units": 5, "issued": True})
    assert (changed.status, changed.body["left"], changed.body["limit_per_user"]) == (200, 5, 1)
    assert (await staff(gateway, "GET", path)).body["items"] == [changed.body]
    assert (await staff(gateway, "GET", f"{path}/TEN")).body == changed.body
    issued = await staff(gateway, "POST", f"{path}/TEN/issue", json={"users": ["ann", "ben"]})
    assert [item["user_id"] for item in issued.body["items"]] == ["ann", "ben"]
    await gateway.services.snapshots.refresh()
    offers = (await gateway.call("GET", f"/v1/sales/{sale_id}/offers")).body["items"]
    assert [offer["sku"] for offer in offers] == ["a"]


async def test_wrong_requests_of_staff_are_refused(shop: CliServices, gateway: TestGateway, sale: str) -> None:
    path = f"{sale}/coupons"
    refused = await staff(gateway, "POST", path, json={**COUPON, "code": "ten"})
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/code")
    refused = await staff(gateway, "POST", path, json={**COUPON, "code": "NEW", "promotion_id": "other"})
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/promotion_id")
    assert (await staff(gateway, "GET", f"{path}/OTHER")).status == 404
    assert (await staff(gateway, "POST", path, json={**COUPON, "units": 3})).code == "conflict"
    assert (await gateway.call("GET", f"/v1/admin/sales/{path}", user="ann", roles=["support"])).status == 403


@pytest.mark.parametrize("fast_path", [True, False])
async def test_coupon_is_used_until_it_is_used_up(
    shop: CliServices, settings: Settings, sale: str, fast_path: bool
) -> None:
    """A used-up coupon is refused by the process that knows it, and orders without it are not."""
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        order_id = await use_up(gateway, sale)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: has_orders(shop, 6))
    stored = (await shop.orders.get_details(order_id, [sale])).order
    assert stored.price is not None
    assert [(part.promotion_id, part.amount) for part in stored.price.discounts] == [(PROMOTION, 10)]
    assert stored.price.coupons == ["TEN"]
    audit = await shop.audit.audit_sale(sale)
    assert audit.clean, audit.findings


async def use_up(gateway: TestGateway, sale: str) -> UUID:
    """Use up the two coupons, and one that is added. Returns the first order."""
    body = order_body(sale, ("a", 1), coupons=["TEN"])

    async def order(user: str, body: dict[str, Any] = body, key: str | None = None) -> GatewayResponse:
        return await gateway.order(body, user=user, key=key)

    placed = await order("ann", key="key")
    assert (placed.status, placed.body["total"]["amount"]) == (202, 90)
    assert (await order("ann", key="key")).body == placed.body
    again = await order("ann", key="other")
    assert (again.status, again.code, again.body["coupon"]) == (409, "coupon_limit", "TEN")
    assert (await order("ben")).status == 202
    for user in ("cat", "dan", "eve"):
        refused = await order(user)
        assert (refused.status, refused.code, refused.body["coupon"]) == (409, "coupon_used_up", "TEN")
    without = order_body(sale, ("a", 1))
    assert [(await order(user, without, key="without")).status for user in ("cat", "dan", "eve")] == [202] * 3
    assert (await staff(gateway, "PATCH", f"{sale}/coupons/TEN", json={"units": 3})).body["left"] == 1
    assert (await order("cat", key="now")).status == 202
    return UUID(placed.body["order_id"])


async def has_orders(shop: CliServices, count: int) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) = $1 FROM orders", count))


async def test_coupon_that_is_not_the_customers_is_refused(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale: str
) -> None:
    codes = build_issued_codes(settings.auth)
    assert codes
    await make_coupon(shop, sale, "VIP", 5, issued=True, promotion_id="vip")
    await gateway.services.snapshots.refresh()
    ann = codes.issue(sale, "VIP", "ann")
    for user, coupons, number in (
        ("ann", ["NONE"], 0),
        ("ann", ["TEN", "TEN"], 1),
        ("ann", ["VIP"], 0),
        ("ben", ["TEN", ann], 1),
        ("ann", [f"{ann}X"], 0),
        ("ann", [codes.issue("another", "VIP", "ann")], 0),
    ):
        refused = await gateway.order(order_body(sale, ("a", 1), coupons=coupons), user=user)
        assert (refused.status, refused.code) == (422, "invalid")
        assert [error["pointer"] for error in refused.body["errors"]] == [f"/coupons/{number}"]
    placed = await gateway.order(order_body(sale, ("a", 1), coupons=[ann]), user="ann")
    assert placed.status == 202, placed.text
    assert [(coupon.code, coupon.used) for coupon in await shop.coupons.list_coupons(sale)] == [("TEN", 0), ("VIP", 1)]


async def test_quote_says_that_coupon_cannot_be_used(gateway: TestGateway, sale: str) -> None:
    body = order_body(sale, ("a", 1), coupons=["TEN"])

    async def obstacles(user: str) -> list[str]:
        quoted: list[str] = (await gateway.call("POST", "/v1/orders/quote", user=user, json=body)).body["obstacles"]
        return quoted

    assert await obstacles("ann") == []
    for user in ("ann", "ben"):
        assert (await gateway.order(body, user=user)).status == 202
    assert await obstacles("cat") == ["coupon_used_up"]
    assert await obstacles("ann") == ["coupon_used_up", "coupon_limit"]
