"""Promotions over HTTP, as staff manage them."""

from __future__ import annotations

from typing import Any

from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import make_sale, order_body

PROMOTION = {
    "promotion_id": "300-less-40",
    "label": "满300减40",
    "promotion_class": "order",
    "rule": {"kind": "stepped", "steps": [{"threshold": 30_000, "amount": 4_000}]},
}


async def test_staff_manage_promotions(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 10_000, None)})
    path = f"/v1/admin/sales/{sale_id}/promotions"

    async def staff(method: str, path: str, body: Any = None, roles: tuple[str, ...] = ("sales",)) -> GatewayResponse:
        return await gateway.call(method, path, user="ann", roles=roles, json=body)

    created = await staff("POST", path, PROMOTION)
    assert (created.status, created.headers["Location"]) == (201, f"{path}/300-less-40"), created.text
    again = await staff("POST", path, PROMOTION)
    assert (again.status, again.body) == (201, created.body)
    other = await staff("POST", path, {**PROMOTION, "label": "another"})
    assert (other.status, other.code) == (409, "conflict")
    assert (await staff("GET", created.headers["Location"])).body == created.body
    assert (await staff("GET", path)).body == {"items": [created.body], "next": None}
    for body, ends_at, skus in (
        ({"ends_at": "2030-01-01T00:00:00Z", "skus": ["a"]}, "2030-01-01T00:00:00Z", ["a"]),
        ({"label": "still"}, "2030-01-01T00:00:00Z", ["a"]),
        ({"ends_at": None, "skus": None}, None, None),
    ):
        changed = await staff("PATCH", f"{path}/300-less-40", body)
        assert (changed.status, changed.body["ends_at"], changed.body["skus"]) == (200, ends_at, skus), changed.text
    assert (await staff("PATCH", f"{path}/300-less-40", {"enabled": False})).body["enabled"] is False
    deleted = await staff("DELETE", f"{path}/300-less-40")
    assert (deleted.status, deleted.code) == (409, "invalid_sale_state")
    assert (await staff("GET", f"{path}/missing")).status == 404
    assert (await staff("GET", path, roles=("support",))).status == 403


async def test_wrong_promotion_is_refused_with_pointers(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 10_000, None)})
    path = f"/v1/admin/sales/{sale_id}/promotions"
    steps = [{"threshold": 300, "amount": 40}, {"threshold": 200, "amount": 400}]
    for changes, pointers in (
        ({"rule": {"kind": "stepped", "steps": steps}}, ["/rule/steps/1/amount", "/rule/steps/1/threshold"]),
        ({"promotion_class": "voucher"}, ["/promotion_class"]),
        ({"rule": {"kind": "percent", "basis_points": 0}}, ["/rule/basis_points"]),
        ({"skus": ["b"]}, ["/skus"]),
    ):
        refused = await gateway.call("POST", path, roles=["sales"], json={**PROMOTION, **changes})
        assert (refused.status, refused.code) == (422, "invalid"), refused.text
        assert [error["pointer"] for error in refused.body["errors"]] == pointers
    assert (await gateway.call("PATCH", f"{path}/p", roles=["sales"], json={"promotion_class": "item"})).status == 422


async def test_order_after_a_change_has_the_new_price_at_once(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    """The gateway's memory is older than the change, and nobody refreshes it: Redis calls the price stale."""
    await make_sale(shop, sale_id, {"a": (9, 10_000, None)})
    await gateway.services.snapshots.refresh()
    path, body = f"/v1/admin/sales/{sale_id}/promotions", order_body(sale_id, ("a", 3))

    async def order() -> int:
        placed = await gateway.order(body)
        assert placed.status == 202, placed.text
        return int(placed.body["total"]["amount"])

    assert await order() == 30_000
    assert (await gateway.call("POST", path, roles=["sales"], json=PROMOTION)).status == 201
    assert await order() == 26_000
    assert (await gateway.call("PATCH", f"{path}/300-less-40", roles=["sales"], json={"enabled": False})).status == 200
    assert await order() == 30_000
