"""Variants of products: options, barcodes, moves, and two writers at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.catalog.errors import BadProduct, BarcodeTaken, DuplicateVariant, ProductChanged, SkuOfOtherProduct
from commerce.catalog.model import VariantInput
from commerce.catalog.product_rules import check_distinct
from commerce.kernel.errors import Conflict
from ops.services import CliServices
from tests.support.product_shop import ACTOR, add_categories, make_product, product_input, variant_input


@pytest.fixture
async def shirts(shop: CliServices) -> CliServices:
    await add_categories(shop)
    return shop


async def test_repeated_variant_changes_nothing(shirts: CliServices) -> None:
    product = await make_product(shirts)
    await shirts.product_variants.put("shirt", "shirt-m", variant_input(), ACTOR)
    assert await shirts.products.get("shirt") == product
    with pytest.raises(ProductChanged):
        await shirts.product_variants.put("shirt", "shirt-s", variant_input("s", version=1), ACTOR)
    variant = await shirts.product_variants.put("shirt", "shirt-s", variant_input("s", version=3), ACTOR)
    assert (variant.product_id, variant.option_values) == ("shirt", {"size": "s"})


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({}, "the option size has no value"),
        ({"size": "xxl"}, "is not one of the choices"),
        ({"size": ["m"]}, "must be the id of a choice"),
        ({"size": "s", "color": ["red"]}, "color is no option of the product"),
    ],
)
async def test_option_values_that_do_not_fit_are_refused(
    shirts: CliServices, values: dict[str, Any], detail: str
) -> None:
    await make_product(shirts)
    with pytest.raises(BadProduct, match=detail):
        await shirts.product_variants.put("shirt", "new", variant_input(option_values=values), ACTOR)


async def test_duplicate_variant_is_refused_also_of_two_writers_at_once(shirts: CliServices) -> None:
    await make_product(shirts)
    with pytest.raises(DuplicateVariant) as refused:
        await shirts.product_variants.put("shirt", "other", variant_input("m"), ACTOR)
    assert refused.value.extra == {"sku": "shirt-m"}
    results = await asyncio.gather(
        *(shirts.product_variants.put("shirt", f"small-{n}", variant_input("s"), ACTOR) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, DuplicateVariant) for result in results) == 7
    assert len((await shirts.products.get("shirt")).variants) == 3


async def test_text_options_that_differ_in_case_or_width_are_duplicates(shirts: CliServices) -> None:
    await shirts.products.put("shirt", product_input(options=["fabric"], attributes={}), ACTOR)
    await shirts.product_variants.put("shirt", "one", variant_input(option_values={"fabric": "Raw  silk"}), ACTOR)
    with pytest.raises(DuplicateVariant):
        await shirts.product_variants.put("shirt", "two", variant_input(option_values={"fabric": "raw ｓilk"}), ACTOR)


_VALUES = st.dictionaries(
    st.sampled_from(["size", "color", "wide"]),
    st.sampled_from(["s", "S", "m"]) | st.booleans() | st.sampled_from([1, 2, 1.0]) | st.just(["red", "blue"]),
    min_size=1,
)


@given(variants=st.dictionaries(st.sampled_from("abcdef"), _VALUES, max_size=5))
def test_variants_are_distinct_exactly_if_their_folded_values_differ(variants: dict[str, dict[str, Any]]) -> None:
    def fold(value: Any) -> Any:
        return value.lower() if isinstance(value, str) else tuple(sorted(value)) if isinstance(value, list) else value

    folded = [frozenset((name, fold(value)) for name, value in values.items()) for values in variants.values()]
    if len(set(folded)) == len(folded):
        check_distinct(variants)
    else:
        with pytest.raises(DuplicateVariant):
            check_distinct(variants)


async def test_barcode_belongs_to_one_variant_in_any_length(shirts: CliServices) -> None:
    await make_product(shirts)
    upc = variant_input("m", barcode="036000291452")
    await shirts.product_variants.put("shirt", "shirt-m", upc, ACTOR)
    with pytest.raises(BarcodeTaken) as refused:
        await shirts.product_variants.put("shirt", "shirt-l", variant_input("l", barcode="0036000291452"), ACTOR)
    assert refused.value.extra == {"sku": "shirt-m"}
    await make_product(shirts, "coat")
    free = "4006381333931"
    results = await asyncio.gather(
        shirts.product_variants.put("shirt", "shirt-l", variant_input("l", barcode=free), ACTOR),
        shirts.product_variants.put("coat", "coat-l", variant_input("l", barcode=free), ACTOR),
        return_exceptions=True,
    )
    assert sum(isinstance(result, BarcodeTaken) for result in results) == 1


def test_wrong_check_digit_is_refused_with_the_right_one() -> None:
    with pytest.raises(ValueError, match="the check digit of 400638133393 is 1"):
        variant_input(barcode="4006381333932")


async def test_sku_moves_to_another_product_only_if_both_are_named(shirts: CliServices) -> None:
    await shirts.catalog.put("old", VariantInput("Shirt S", 900, "CNY"))
    await make_product(shirts)
    with pytest.raises(SkuOfOtherProduct) as refused:
        await shirts.product_variants.put("shirt", "old", variant_input("s"), ACTOR)
    assert refused.value.extra == {"product_id": "old"}
    await shirts.product_variants.put("shirt", "old", variant_input("s", moved_from="old"), ACTOR)
    assert [variant.sku for variant in (await shirts.products.get("shirt")).variants] == ["old", "shirt-l", "shirt-m"]
    left = await shirts.products.get("old")
    assert (left.status, left.variants) == ("retired", [])
    for product_id in ("old", "shirt"):
        [change, *_] = (await shirts.products.list_changes(product_id, None, 1)).items
        assert (change.action, change.diff["variants/old/product_id"]) == ("moved", ["old", "shirt"])
    await shirts.catalog.put("old", VariantInput("Shirt S", 950, "CNY"))
    assert (await shirts.catalog.get("old")).product_id == "shirt"


async def test_variants_of_a_product_have_one_currency(shirts: CliServices) -> None:
    await make_product(shirts)
    with pytest.raises(Conflict, match="all variants of a product have one currency"):
        await shirts.product_variants.put("shirt", "shirt-s", variant_input("s", currency="GBP"), ACTOR)
