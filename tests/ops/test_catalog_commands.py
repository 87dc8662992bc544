"""`floodgate catalog` as staff have it: products, variants and prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commerce.catalog.model import VariantInput
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.product_shop import add_categories


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.fixture
async def shirts(shop: CliServices, tmp_path: Path) -> Path:
    """Return the file of a product."""
    await add_categories(shop)
    file = tmp_path / "shirt.json"
    texts = {"en": {"name": "Shirt [bold]x"}, "zh": {"name": "衬衫"}}
    product = {
        "texts": texts,
        "category_id": "shirts",
        "attributes": {"fabric": "linen"},
        "options": ["color"],
        "reason": "new",
    }
    file.write_text(json.dumps(product))
    return file


async def test_product_is_created_published_and_printed(shop: CliServices, shirts: Path, floodgate: Command) -> None:
    await shop.catalog.put("old", VariantInput("Old shirt", 100, "CNY"))
    put = ("catalog", "variant", "put", "shirt")
    more = ("--price", "9.90", "--currency", "CNY", "--reason", "new")
    for command, expected in (
        (("catalog", "put", "shirt", shirts), "shirt is draft, version 1"),
        (("catalog", "put", "shirt", shirts), "shirt is draft, version 1"),
        ((*put, "red", "--name", "Red shirt", "--option", 'color=["red"]', *more), "red is a variant of shirt"),
        (
            (*put, "old", "--name", "Blue", "--option", 'color=["blue"]', "--moved-from", "old", *more),
            "old is a variant of shirt",
        ),
        (("catalog", "publish", "shirt", "--reason", "ready", "--anyway", "a test"), "shirt is on_sale, version 4"),
    ):
        status, output = await floodgate(*command)
        assert (status, expected in output) == (0, True), output
    for name in ("shirt", "red"):
        status, output = await floodgate("catalog", "show", name)
        assert all(text in output for text in ("Shirt [bold]x", "衬衫", "linen", "9.90 CNY", "color: blue")), output
    status, output = await floodgate("catalog", "products", "--json")
    assert [(product["product_id"], product["status"]) for product in json.loads(output)] == [
        ("old", "retired"),
        ("shirt", "on_sale"),
    ]
    status, output = await floodgate("catalog", "changes", "shirt", "--json")
    assert [change["action"] for change in json.loads(output)] == ["published", "moved", "variant_added", "created"]
    for command, reason in (
        ((*put, "red2", "--name", "Red shirt", "--option", 'color=["red"]', *more), "red2 would be like red"),
        ((*put, "red", "--name", "Red", "--option", "color", *more), "write it as size=m"),
        ((*put, "red", "--name", "Red", "--barcode", "4006381333932", *more), "the check digit of 400638133393 is 1"),
        (("catalog", "publish", "shirt", "--version", "1", "--reason", " "), "one line with at least one letter"),
        (("catalog", "retire", "shirt", "--version", "1", "--reason", "x"), "shirt has version 4"),
        (("catalog", "show", "none"), "no variant has the SKU 'none'"),
    ):
        status, output = await floodgate(*command)
        assert (status, reason in output) == (1, True), output


async def test_price_is_set_and_planned(shop: CliServices, floodgate: Command) -> None:
    await shop.catalog.put("tea", VariantInput("tea", 100, "CNY"))
    status, output = await floodgate("catalog", "price", "set", "tea", "1.50", "--reason", "dearer")
    assert (status, "tea costs 1.50 CNY" in output) == (0, True), output
    at = ("--at", "2999-01-01T00:00:00Z")
    status, output = await floodgate("catalog", "price", "set", "tea", "2", "--reason", "far away", *at)
    assert (status, "tea costs 2.00 CNY from 2999-01-01 00:00:00 UTC on" in output) == (0, True), output
    status, output = await floodgate("catalog", "price", "planned", "tea", "--json")
    [plan] = json.loads(output)
    status, output = await floodgate("catalog", "price", "cancel", plan["plan_id"], "--reason", "too far")
    assert (status, "tea does not cost 2.00 CNY" in output) == (0, True), output
    status, output = await floodgate("catalog", "price", "list", "tea")
    assert (status, "1.50 CNY" in output, "1.00 CNY" in output) == (0, True, True)
    status, output = await floodgate("catalog", "price", "planned", "tea")
    assert "cancelled" in output


async def test_index_of_products_is_built_again(shop: CliServices, floodgate: Command) -> None:
    await shop.catalog.put("tea", VariantInput("green tea", 100, "CNY"))
    assert await floodgate("catalog", "reindex") == (0, "indexed 1 products\n")
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE product_search SET brand = 'wrong'")
    status, output = await floodgate("catalog", "reindex", "--json")
    assert (status, json.loads(output)) == (0, {"products": 1})
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT brand FROM product_search") is None
