"""Changes and deletion of sales over the admin API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from commerce.kernel.clock import from_ms
from ops.services import CliServices
from tests.support.gateway import TestGateway
from tests.support.sales import make_sale, order_body


async def test_patch_of_a_sale_changes_its_members(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opens_at=opens_at, opened=False)

    async def patch(**body: Any) -> Any:
        return await gateway.call("PATCH", f"/v1/admin/sales/{sale_id}", roles=["sales"], json=body)

    changed = await patch(title="Another sale", closes_at=(opens_at + timedelta(hours=1)).isoformat())
    assert (changed.status, changed.body["title"], changed.body["pay_within_s"]) == (200, "Another sale", 900)
    assert (await patch(closes_at=None)).body["closes_at"] is None
    for body in (
        {"opens_at": "2030-01-01T00:00:00"},  # in whose zone?
        {"closes_at": "2999-12-31T23:59:59-01:00"},
        {"opens_at": None},
        {"title": None},
        {"pay_within_s": 1},
        {"state": "open"},
        {"closes_at": opens_at.isoformat()},
        {"currency": "ZZZ"},
    ):
        refused = await patch(**body)
        assert (refused.status, refused.code) == (422, "invalid"), body
    refused = await patch(currency="GBP")
    assert (refused.status, refused.code) == (409, "invalid_sale_state")
    assert (await gateway.call("PATCH", "/v1/admin/sales/missing", roles=["sales"], json={})).status == 404
    assert (await gateway.call("PATCH", f"/v1/admin/sales/{sale_id}", roles=["support"], json={})).status == 403


async def test_orders_have_the_time_to_pay_of_the_published_terms(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, pay_within_s=900)
    await gateway.services.snapshots.refresh()
    path = f"/v1/admin/sales/{sale_id}"
    changed = await gateway.call("PATCH", path, roles=["sales"], json={"pay_within_s": 60})
    assert changed.body["generation"] == changed.body["published_generation"]
    accepted = await gateway.order(order_body(sale_id, ("a", 1)))
    left = datetime.fromisoformat(accepted.body["pay_by"]) - from_ms(shop.clock.now_ms())
    assert left <= timedelta(seconds=60)


async def test_draft_and_its_items_are_deleted_once(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None), "b": (5, 100, None)}, opened=False)
    path = f"/v1/admin/sales/{sale_id}"

    async def delete(path: str) -> int:
        return int((await gateway.call("DELETE", path, roles=["sales"])).status)

    assert [await delete(f"{path}/items/a") for _ in range(2)] == [204, 404]
    assert [item.sku for item in (await shop.sales.list_items(sale_id, None, 9)).items] == ["b"]
    assert [await delete(path) for _ in range(2)] == [204, 404]
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    assert [await delete(path), await delete(f"{path}/items/a")] == [409, 409]
