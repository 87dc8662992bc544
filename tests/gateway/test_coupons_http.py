"""Coupons over HTTP, for staff."""

from __future__ import annotations

from typing import Any

from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import make_sale

COUPON = {"code": "TEN", "promotion_id": "ten-off", "units": 2}


async def staff(gateway: TestGateway, method: str, path: str, **kwargs: Any) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin/sales/{path}", user="ann", roles=["sales"], **kwargs)


async def test_staff_create_change_and_issue_coupon(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
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


async def test_wrong_requests_of_staff_are_refused(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    path = f"{sale_id}/coupons"
    refused = await staff(gateway, "POST", path, json={**COUPON, "code": "ten"})
    assert (refused.status, refused.body["errors"][0]["pointer"]) == (422, "/code")
    assert (await staff(gateway, "GET", f"{path}/TEN")).status == 404
    await staff(gateway, "POST", path, json=COUPON)
    assert (await staff(gateway, "POST", path, json={**COUPON, "units": 3})).code == "conflict"
    assert (await gateway.call("GET", f"/v1/admin/sales/{path}", user="ann", roles=["support"])).status == 403
