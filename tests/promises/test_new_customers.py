"""A discount for new customers is had once, however many first orders race."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.orders import store as orders
from commerce.promotions.model import ChangedPromotion, PercentOff, PromotionClass, PromotionInput
from commerce.sales.loading import load_sale
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, run_workers
from tests.support.sales import eventually, make_sale, order_body

FIRST_ORDER = PromotionInput(
    "first-order", "10% off your first order", PromotionClass.ITEM, PercentOff(1_000), new_customers_only=True
)
FULL, REDUCED = 1_000, 900


async def stored_totals(shop: CliServices, order_ids: list[UUID]) -> list[int]:
    async with shop.db.connection() as connection:
        if len(await orders.find_existing(connection, order_ids)) < len(order_ids):
            return []
        headers = await orders.read_order_headers(connection, order_ids)
    return sorted(header.total.amount for header in headers.values())


@pytest.mark.parametrize("opened", [False, True], ids=["promotion-of-a-draft", "promotion-of-an-open-sale"])
async def test_racing_first_orders_have_the_discount_once(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, opened: bool
) -> None:
    keys: SaleKeys = await make_sale(shop, sale_id, {"a": (500, FULL, None)}, opened=opened)
    await shop.promotions.create(sale_id, FIRST_ORDER, "test")
    if not opened:
        await shop.sales.open(sale_id, "test")
    await gateway.services.snapshots.refresh()
    users = [f"u{n}" for n in range(10)]
    answers = await asyncio.gather(
        *(gateway.order(order_body(sale_id, ("a", 1)), user=user) for user in users for _ in range(5))
    )
    assert {answer.status for answer in answers} == {202}
    totals = sorted(answer.body["total"]["amount"] for answer in answers)
    assert totals == [REDUCED] * len(users) + [FULL] * 4 * len(users)
    order_ids = [UUID(answer.body["order_id"]) for answer in answers]
    async with run_workers(settings, "order_writer"):
        assert await eventually(lambda: stored_totals(shop, order_ids)) == totals
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert (audit.total.initial, audit.total.held) == (500, 50)
    assert await shop.redis.hget(keys.buyers.decode(), "u0\0coupon:@first-order") == b"1"


async def test_first_order_that_is_cancelled_gives_the_discount_back(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (500, FULL, None)})
    await shop.promotions.create(sale_id, FIRST_ORDER, "test")
    await gateway.services.snapshots.refresh()
    first = await gateway.order(order_body(sale_id, ("a", 1)))
    async with run_workers(settings, "order_writer", "release_worker"):
        cancelled = await gateway.call("POST", f"/v1/orders/{first.body['order_id']}/cancel")
        assert cancelled.status == 200

        async def is_released() -> bool:
            audit = await shop.audit.audit_sale(sale_id)
            return audit.total.held == 0 and audit.clean

        await eventually(is_released)
    second = await gateway.order(order_body(sale_id, ("a", 1)))
    assert [first.body["total"]["amount"], second.body["total"]["amount"]] == [REDUCED, REDUCED]


async def test_promotion_that_becomes_one_for_new_customers_counts_first_orders(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (500, FULL, None)})
    everybody = PromotionInput("p", "10% off", PromotionClass.ITEM, PercentOff(1_000))
    await shop.promotions.create(sale_id, everybody, "test")
    for is_limited in (True, False, True):
        await shop.promotions.change(sale_id, "p", ChangedPromotion(new_customers_only=is_limited), "test")
    await gateway.services.snapshots.refresh()
    answers = await asyncio.gather(*(gateway.order(order_body(sale_id, ("a", 1))) for _ in range(5)))
    assert sorted(answer.body["total"]["amount"] for answer in answers) == [REDUCED, *[FULL] * 4]
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_deleted_promotion_of_a_draft_leaves_no_item(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (500, FULL, None)}, opened=False)
    await shop.promotions.create(sale_id, FIRST_ORDER, "test")
    await shop.promotions.delete(sale_id, "first-order", "test")
    async with shop.db.connection() as connection:
        skus = await connection.fetch("SELECT sku FROM sale_items WHERE sale_id = $1", sale_id)
    assert [row["sku"] for row in skus] == ["a"]


async def test_loaded_sale_counts_no_units_of_first_orders(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (500, FULL, None)})
    await shop.promotions.create(sale_id, FIRST_ORDER, "test")
    report = await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (report.units_free, (await shop.audit.audit_sale(sale_id)).total.initial) == (500, 500)
