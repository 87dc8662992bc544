"""Imported products pass the gate of quality before they go on sale."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.product_imports.errors import ImportNotChecked
from ops.services import CliServices
from tests.support.product_files import apply, check, imports_of, report
from tests.support.product_shop import ACTOR, add_categories, make_product

FILE = (
    "product_id,status,name:en,sku,variant_name,price,currency,barcode\n"
    "lamp,on_sale,Lamp,lamp,Lamp,12,CNY,4006381333931\n"
    "draft,draft,Draft,draft,Draft,1,CNY,\n"
)


@pytest.fixture(autouse=True)
async def _categories(shop: CliServices) -> None:
    await add_categories(shop)


async def read_diff(shop: CliServices, product_id: str) -> tuple[str, dict[str, Any]]:
    [change, *_] = (await shop.products.list_changes(product_id, None, 1)).items
    return change.action, change.diff


async def count_rows(shop: CliServices, product_id: str) -> list[int]:
    """Count what a product has left in the tables."""
    tables = ("products", "variants", "product_texts", "product_changes", "products_to_grade")
    async with shop.db.connection() as connection:
        counts = [
            await connection.fetchval(f"SELECT count(*) FROM {table} WHERE product_id = $1", product_id)
            for table in tables
        ]
        return [*counts, await connection.fetchval("SELECT count(*) FROM price_changes WHERE sku = $1", product_id)]


async def test_new_product_of_a_low_grade_is_refused_and_nothing_of_it_is_stored(shop: CliServices) -> None:
    applied = await apply(shop, await check(shop, FILE), anyway=None)
    assert (applied.status, applied.products, applied.applied_products, applied.failed_products) == ("applied", 2, 1, 1)
    lamp, draft = await report(shop, applied)
    assert (lamp.outcome, lamp.result, draft.result) == ("created", "refused", "applied")
    assert lamp.detail is not None
    assert lamp.detail.startswith("cannot publish lamp: its grade is E with ")
    assert "give a reason as `anyway`" in lamp.detail
    assert "picture" in lamp.detail
    assert await count_rows(shop, "lamp") == [0] * 6
    assert (await shop.products.get("draft")).status == "draft"


async def test_reason_puts_a_low_grade_on_sale_and_the_change_keeps_both(shop: CliServices) -> None:
    applied = await apply(shop, await check(shop, FILE), anyway="pictures on Monday")
    assert (applied.applied_products, applied.anyway) == (2, "pictures on Monday")
    action, diff = await read_diff(shop, "lamp")
    assert (action, diff["status"], diff["grade"], diff["anyway"]) == (
        "created",
        [None, "on_sale"],
        [None, "E"],
        [None, "pictures on Monday"],
    )
    assert "anyway" not in (await read_diff(shop, "draft"))[1]


async def test_draft_or_retired_product_keeps_all_of_its_values_when_it_is_refused(shop: CliServices) -> None:
    before = await make_product(shop)
    text = "product_id,status,brand,sku,price\nshirt,on_sale,Other,shirt-m,77\n"
    assert (await apply(shop, await check(shop, text), anyway=None)).failed_products == 1
    assert await shop.products.get("shirt") == before
    step = "product_id,status\nshirt,on_sale\n"
    assert (await apply(shop, await check(shop, step))).applied_products == 1
    assert await read_diff(shop, "shirt") == (
        "published",
        {"status": ["draft", "on_sale"], "grade": [None, "E"], "anyway": [None, "it is a test"]},
    )
    await apply(shop, await check(shop, step.replace("on_sale", "retired")), anyway=None)
    assert (await apply(shop, await check(shop, step), anyway=None)).failed_products == 1
    assert (await shop.products.get("shirt")).status == "retired"


async def test_product_on_sale_is_changed_whatever_its_grade(shop: CliServices) -> None:
    await make_product(shop, published=True)
    text = "product_id,status,brand,sku,price\nshirt,on_sale,Other,shirt-m,77\n"
    assert (await apply(shop, await check(shop, text), anyway=None)).applied_products == 1
    assert (await read_diff(shop, "shirt"))[1] == {"brand": ["Acme", "Other"]}


async def test_repeat_for_another_reason_is_refused(shop: CliServices) -> None:
    current = await check(shop, FILE)
    await apply(shop, current)
    for same in (None, "it is a test"):
        assert (await imports_of(shop).apply(current.import_id, ACTOR, same)).anyway == "it is a test"
    with pytest.raises(ImportNotChecked, match="for another reason: it is applied; send the file again with it"):
        await imports_of(shop).apply(current.import_id, ACTOR, "another one")
