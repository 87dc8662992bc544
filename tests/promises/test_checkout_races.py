"""P3: requests that go on with one checkout at once order each line once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.order_placement import OrderPlacement
from ops.services import CliServices
from tests.gateway.test_cart_http import CART, put, quantities
from tests.gateway.test_checkout_http import check_out, checkout_body, count_orders, outcomes
from tests.support.gateway import TestGateway
from tests.support.sales import make_sale


@pytest.fixture
async def sales(shop: CliServices, gateway: TestGateway, sale_prefix: str) -> list[str]:
    ids = [f"{sale_prefix}-{number}" for number in range(3)]
    for sale_id in ids:
        await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await gateway.services.snapshots.refresh()
    return ids


@pytest.mark.parametrize("is_placed", [True, False], ids=["placed", "not-sent"])
async def test_request_that_lost_its_lease_writes_nothing_more(
    gateway: TestGateway, shop: CliServices, sales: list[str], monkeypatch: pytest.MonkeyPatch, is_placed: bool
) -> None:
    """The first request stalls before or after its order reaches Redis, and another one takes over."""
    for sale_id in sales:
        await put(gateway, sale_id, "a", 2)
    original, reached, resumed = OrderPlacement.place, asyncio.Event(), asyncio.Event()

    async def stall_once(placement: OrderPlacement, order: Any, *more: Any) -> Any:
        if order.sale_id != sales[0] or reached.is_set():
            return await original(placement, order, *more)
        reached.set()
        answer = await original(placement, order, *more) if is_placed else None
        await resumed.wait()
        return answer or await original(placement, order, *more)

    monkeypatch.setattr(OrderPlacement, "place", stall_once)
    body = checkout_body(3, 600)
    first = asyncio.create_task(check_out(gateway, body))
    await reached.wait()
    while (busy := await check_out(gateway, body)).status != 200:
        assert busy.code == "checkout_in_progress"
        async with shop.db.connection() as connection:
            await connection.execute("UPDATE checkouts SET lease_until = created_at")
    assert set(outcomes(busy).values()) == {"placed"}
    resumed.set()
    late = await first
    assert (late.status, late.code) == (409, "checkout_in_progress")
    assert (await check_out(gateway, body)).body["orders"] == busy.body["orders"]
    assert await count_orders(shop, sales) == [2, 2, 2]
    assert (await gateway.call("GET", CART)).body["version"] == 4


async def test_change_that_races_a_checkout_orders_only_confirmed_lines(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    """One of both is refused."""
    version, ordered = 0, 0
    for _ in range(12):
        cart = await put(gateway, sales[0], "a", 1)
        version = cart.body["version"]
        checked_out, changed = await asyncio.gather(
            check_out(gateway, checkout_body(version, 100)),
            put(gateway, sales[0], "a", 5, headers={"If-Match": str(version)}),
        )
        assert (checked_out.status, changed.status) in ((200, 409), (409, 200)), (checked_out.text, changed.text)
        ordered += checked_out.status == 200
        assert await count_orders(shop, sales) == [ordered, 0, 0]
        left = quantities(await gateway.call("GET", CART))
        assert left == ({} if checked_out.status == 200 else {(sales[0], "a"): 5})
