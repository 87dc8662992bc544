"""Gateways count views and cart lines once for each answer with content, and bound their memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from config.settings import Settings
from gateway import visit_counts
from gateway.visit_counts import VisitCounts
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.product_shop import add_categories, make_product
from tests.support.sales import eventually, make_sale, order_body

ITEMS = {"a": (100, 100, None), "b": (100, 100, None)}
Visits = dict[tuple[str, str, str], int]


async def read_visits(shop: CliServices) -> Visits:
    async with shop.db.connection() as connection:
        rows: list[Any] = await connection.fetch(
            "SELECT figure, sale_id, sku, sum(times)::int AS times FROM visits_to_count, "
            "unnest(figures, sale_ids, skus, counts) AS visits (figure, sale_id, sku, times) GROUP BY 1, 2, 3"
        )
    return {(row["figure"], row["sale_id"], row["sku"]): row["times"] for row in rows}


async def wait_for(shop: CliServices, expected: Visits) -> None:
    async def is_stored() -> bool:
        return await read_visits(shop) == expected

    await eventually(is_stored)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_pages_with_content_count_as_views(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, fast_path: bool
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    async with open_gateway(make_settings(), fast_path=fast_path) as gateway:
        offers = f"/v1/sales/{sale_id}/offers"
        for _ in range(3):
            product = await gateway.call("GET", "/v1/variants/a", user=None)
            assert product.status == 200
            assert (await gateway.call("GET", offers, user=None)).status == 200
        tag = {"If-None-Match": product.headers["ETag"]}
        assert (await gateway.call("GET", "/v1/variants/a", user=None, headers=tag)).status == 304
        for path, status in (
            ("/v1/variants/none", 404),
            ("/v1/sales/none/offers", 404),
            (f"{offers}?cursor=a", 200),  # not the first page
            (f"/v1/sales/{sale_id}", 200),
            ("/v1/variants", 200),
        ):
            assert (await gateway.call("GET", path, user=None)).status == status
        await wait_for(shop, {("viewed", "", "a"): 4, ("viewed", sale_id, ""): 3})
        assert (await gateway.call("GET", "/v1/variants/b", user=None)).status == 200
    assert (await read_visits(shop))["viewed", "", "b"] == 1, "stored when the gateway stops"


@pytest.mark.parametrize("fast_path", [True, False])
async def test_page_of_a_product_counts_as_a_view_of_each_variant(
    shop: CliServices, make_settings: Callable[..., Settings], fast_path: bool
) -> None:
    await add_categories(shop)
    await make_product(shop, published=True)
    async with open_gateway(make_settings(), fast_path=fast_path) as gateway:
        for path, status in (("shirt", 200), ("shirt", 200), ("none", 404)):
            assert (await gateway.call("GET", f"/v1/products/{path}", user=None)).status == status
        await wait_for(shop, {("viewed", "", "shirt-l"): 2, ("viewed", "", "shirt-m"): 2})


@pytest.mark.parametrize("fast_path", [True, False])
async def test_orders_refused_as_sold_out_count_once_each(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, fast_path: bool
) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None), "b": (9, 100, None)})
    async with open_gateway(make_settings(), fast_path=fast_path) as gateway:
        await gateway.services.snapshots.refresh()
        assert (await gateway.order(order_body(sale_id, ("a", 1)), user="first")).status == 202
        expected = 0
        for wave in range(3):  # the first is decided by `reserve.lua`; the next ones are expected to be refused
            calls = [gateway.order(order_body(sale_id, ("a", 1)), user=f"user-{wave}-{n}") for n in range(4)]
            statuses = [answer.status for answer in await asyncio.gather(*calls)]
            assert statuses == [409] * 4
            expected += len(statuses)
        assert (await gateway.order(order_body(sale_id, ("b", 1)), user="last")).status == 202
        await wait_for(shop, {("sold_out", sale_id, "a"): expected, ("sold_out", sale_id, ""): expected})


async def test_lines_put_into_carts_count_and_refused_ones_do_not(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    await gateway.services.snapshots.refresh()
    for sku, status in (("a", 200), ("a", 200), ("b", 200), ("none", 404)):
        path = f"/v1/cart/lines/{sale_id}/{sku}"
        answer = await gateway.call("PUT", path, json={"quantity": 2})
        assert answer.status == status, answer.text
    assert (await gateway.call("PATCH", f"/v1/cart/lines/{sale_id}/a", json={"quantity": 3})).status == 200
    await wait_for(shop, {("carted", sale_id, ""): 3, ("carted", sale_id, "a"): 2, ("carted", sale_id, "b"): 1})


async def test_visits_beyond_the_memory_are_dropped_and_counted(
    shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit_counts, "_MAX_KEYS", 2)
    visits = VisitCounts()
    for sku in ("a", "b", "c", "a", "d"):
        visits.note_variant(sku)
    before = REGISTRY.get_sample_value("floodgate_dropped_visits_total") or 0
    assert await visits.export(shop.db, shop.clock) == 2
    assert await visits.export(shop.db, shop.clock) == 0
    assert await read_visits(shop) == {("viewed", "", "a"): 2, ("viewed", "", "b"): 1}
    assert REGISTRY.get_sample_value("floodgate_dropped_visits_total") == before + 2
