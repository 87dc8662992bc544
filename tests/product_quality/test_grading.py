"""Grades follow changes of products, their pictures and categories, by notes of the same transactions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from commerce.catalog.model import ProductPatch, ProductStep, ProductText, PublishStep, VariantInput
from commerce.kernel.errors import Invalid
from commerce.product_quality import grading
from commerce.product_quality.errors import BelowPublishingGrade, NotGraded
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.model import GradedProduct, QualityFilter
from commerce.product_quality.publishing_gate import PublishingGate
from commerce.product_quality.service import ProductQuality, read_cursor
from config.quality import QualitySettings
from ops.services import CliServices
from tests.support.product_shop import ACTOR, add_categories, make_product, product_input

POLICY = QualitySettings(debounce_s=0)


class GradingShop:
    """A shop whose products are graded when a test says so."""

    def __init__(self, shop: CliServices) -> None:
        self.shop = shop
        self.failures = 0
        self.grading = ProductGrading(shop.db, shop.clock, POLICY, self._count)
        self.quality = ProductQuality(shop.db)

    def _count(self) -> None:
        self.failures += 1

    async def grade(self) -> int:
        """Grade until nothing is noted any more. Returns how many products were looked at."""
        total = 0
        while count := await self.grading.step():
            total += count
        return total

    async def reasons(self, product_id: str) -> dict[str, list[str]]:
        product = await self.quality.get(product_id)
        return {finding.reason: finding.values for finding in product.findings}

    async def execute(self, statement: str, *values: object) -> None:
        async with self.shop.db.connection() as connection:
            await connection.execute(statement, *values)

    async def count_notes(self) -> int:
        async with self.shop.db.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM products_to_grade"))


@pytest.fixture
async def shirts(shop: CliServices) -> GradingShop:
    await add_categories(shop)
    graded = GradingShop(shop)
    await graded.grade()
    return graded


async def add_picture(shirts: GradingShop, product_id: str, number: int, px: int = 1_200) -> None:
    digest = bytes([number]) * 32
    await shirts.execute("INSERT INTO pictures (digest, created_at) VALUES ($1, now())", digest)
    await shirts.execute("INSERT INTO picture_files VALUES ($1, 2048, $1, 9, $2, 600)", digest, px)
    await shirts.execute(
        "INSERT INTO product_pictures (product_id, digest, position, added_at, added_by)"
        " VALUES ($1, $2, $3, now(), 'x')",
        *(product_id, digest, number),
    )


async def test_grade_follows_texts_pictures_prices_and_measures(shirts: GradingShop) -> None:
    await make_product(shirts.shop)
    with pytest.raises(NotGraded):
        await shirts.quality.get("shirt")
    assert await shirts.grade() > 0
    assert await shirts.count_notes() == 0
    first = await shirts.quality.get("shirt")
    assert (first.grade, first.points, first.is_on_sale, first.names["en"]) == ("E", 47, False, "Shirt")
    assert set(await shirts.reasons("shirt")) == {
        *("no_pictures", "no_description", "missing_barcodes", "missing_measures"),
    }
    for number in (1, 2, 3):
        await add_picture(shirts, "shirt", number)
    await shirts.execute("UPDATE variants SET weight_g = 9, length_mm = 9, width_mm = 9, height_mm = 9")
    text = (
        "A linen shirt, cut wide and sewn in Suzhou; it is washed at 40 degrees, and needs no iron if it dries hanging."
    )
    patch = ProductPatch(texts={"en": ProductText(name="Shirt", description=text)}, version=3, reason="more")
    await shirts.shop.products.change("shirt", patch, ACTOR)
    await shirts.grade()
    assert await shirts.reasons("shirt") == {"no_description": ["zh-CN"], "missing_barcodes": ["shirt-l", "shirt-m"]}
    await shirts.execute("DELETE FROM product_pictures")
    await shirts.grade()
    assert "no_pictures" in await shirts.reasons("shirt")


async def test_grade_follows_the_rules_of_categories_above(shirts: GradingShop) -> None:
    await make_product(shirts.shop, published=True)
    await shirts.execute(
        "INSERT INTO categories (category_id, path, position, status, version, created_at, changed_at, changed_by)"
        " VALUES ('wear', '{wear}', 9, 'active', 1, now(), now(), 'test')"
    )
    await shirts.execute(
        "UPDATE categories SET parent_id = 'wear', path = '{wear,shirts}' WHERE category_id = 'shirts'"
    )
    await shirts.grade()
    assert "missing_attributes" not in await shirts.reasons("shirt")
    for attribute in ("since", "size"):
        await shirts.execute("INSERT INTO category_attributes VALUES ('wear', $1, 'required')", attribute)
    await shirts.execute("DELETE FROM category_attributes WHERE category_id = 'shirts' AND attribute_id = 'since'")
    await shirts.grade()
    assert (await shirts.reasons("shirt"))["missing_attributes"] == ["since"]
    listed = (await shirts.quality.list_products(QualityFilter(category_id="wear"), None, 9)).items
    assert [(product.product_id, product.category_id) for product in listed] == [("shirt", "shirts")]
    await shirts.execute("UPDATE category_attributes SET rule = 'optional' WHERE category_id = 'wear'")
    await shirts.grade()
    assert "missing_attributes" not in await shirts.reasons("shirt")
    # A move changes what is inherited.
    await shirts.execute("UPDATE category_attributes SET rule = 'required' WHERE category_id = 'wear'")
    await shirts.execute("UPDATE categories SET parent_id = NULL, path = '{shirts}' WHERE category_id = 'shirts'")
    await shirts.grade()
    assert "missing_attributes" not in await shirts.reasons("shirt")


async def test_many_products_of_a_category_are_graded_in_steps(shirts: GradingShop) -> None:
    variants = [(f"sock-{number}", VariantInput("Sock", 100, "CNY")) for number in range(250)]
    await shirts.shop.catalog.put_many(variants)
    await shirts.grade()
    await shirts.execute("UPDATE products SET category_id = 'mugs'")
    await shirts.grade()
    await shirts.execute("INSERT INTO category_attributes VALUES ('mugs', 'fabric', 'required')")
    assert await shirts.count_notes() == 1
    await shirts.grade()
    graded = await shirts.quality.list_products(QualityFilter(reason="missing_attributes"), None, 1000)
    assert len(graded.items) == 250


async def test_retired_product_has_no_grade_and_is_no_duplicate(shirts: GradingShop) -> None:
    shop = shirts.shop
    await shop.catalog.put_many([(sku, VariantInput("Blue tea pot 2 l", 100, "CNY")) for sku in ("pot", "pot2")])
    await shirts.grade()
    assert ((await shirts.reasons("pot"))["likely_duplicate"], (await shirts.reasons("pot2"))["likely_duplicate"]) == (
        ["pot2"],
        ["pot"],
    )
    await shop.products.retire("pot2", ProductStep(1, "sold out"), ACTOR)
    await shirts.grade()
    assert "likely_duplicate" not in await shirts.reasons("pot")
    with pytest.raises(NotGraded):
        await shirts.quality.get("pot2")
    await shop.products.publish("pot2", PublishStep(2, "back", "a test"), ACTOR)
    await shirts.grade()
    assert (await shirts.reasons("pot"))["likely_duplicate"] == ["pot2"]


@pytest.mark.parametrize(
    ("change", "are_like"),
    [
        ({}, True),
        ({"brand": "Other"}, False),
        ({"brand": None}, True),
        ({"brand": "ACME"}, True),
        ({"attributes": {"fabric": "silk"}}, False),
        ({"texts": {"en": ProductText(name="Shirts")}}, False),
        ({"texts": {"en": ProductText(name="SHIRT ")}}, True),
    ],
)
async def test_products_of_like_names_are_duplicates_unless_brand_or_an_attribute_differs(
    shirts: GradingShop, change: dict[str, Any], are_like: bool
) -> None:
    await shirts.shop.products.put("shirt", product_input(), ACTOR)
    await shirts.grade()
    await shirts.shop.products.put("other", product_input(**change), ACTOR)
    await shirts.grade()
    for product_id in ("shirt", "other"):
        assert ("likely_duplicate" in await shirts.reasons(product_id)) is are_like


async def test_price_is_compared_with_others_of_the_category(shirts: GradingShop) -> None:
    variants = [(f"mug-{n}", VariantInput(f"Mug {n}", 1_000 + n, "CNY")) for n in range(12)]
    await shirts.shop.catalog.put_many([*variants, ("gold", VariantInput("Gold mug", 90_000, "CNY"))])
    await shirts.execute("UPDATE products SET category_id = 'mugs'")
    await shirts.grade()
    assert (await shirts.reasons("gold"))["price_out_of_line"] == ["89 times the median"]
    assert "price_out_of_line" not in await shirts.reasons("mug-3")


async def test_change_during_a_step_is_graded_after_it(shirts: GradingShop) -> None:
    await shirts.shop.products.put("shirt", product_input(), ACTOR)
    await shirts.grade()
    async with shirts.shop.db.transaction() as connection:
        await connection.execute("UPDATE products SET brand = NULL, category_id = NULL")
        assert await shirts.grading.step() == 0
    assert await shirts.grading.step() == 1
    assert "no_category" in await shirts.reasons("shirt")


async def test_processes_that_grade_at_once_take_turns(shirts: GradingShop) -> None:
    await shirts.shop.catalog.put_many([(f"sock-{n}", VariantInput(f"Sock {n}", 9, "CNY")) for n in range(300)])
    counts = await asyncio.gather(*(shirts.grading.step() for _ in range(3)), shirts.grading.recount())
    assert counts[-1] == 300
    await shirts.grade()
    assert await shirts.count_notes() == 0
    assert len((await shirts.quality.list_products(QualityFilter(), None, 1000)).items) == 300


async def test_change_that_is_rolled_back_leaves_no_note(shirts: GradingShop) -> None:
    await shirts.shop.products.put("shirt", product_input(), ACTOR)
    await shirts.grade()
    async with shirts.shop.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE products SET brand = NULL")
        assert await connection.fetchval("SELECT count(*) FROM products_to_grade") == 1
        await transaction.rollback()
    assert await shirts.count_notes() == 0


async def test_changes_of_the_last_seconds_are_graded_together(shirts: GradingShop) -> None:
    await make_product(shirts.shop)
    patient = ProductGrading(shirts.shop.db, shirts.shop.clock, QualitySettings(debounce_s=3_600))
    assert await patient.step() == 0
    assert 0 < await patient.measure_lag() < 60
    assert await shirts.count_notes() > 1
    assert await shirts.grading.step() == 1


async def test_old_grades_are_computed_once_more(shirts: GradingShop) -> None:
    await make_product(shirts.shop)
    await shirts.grade()
    await shirts.execute("UPDATE product_quality SET points = 99, graded_at = now() - interval '6 days'")
    assert await shirts.grade() == 0
    await shirts.execute("UPDATE product_quality SET graded_at = now() - interval '8 days'")
    assert await shirts.grade() == 1
    assert (await shirts.quality.get("shirt")).points == 47


async def test_recount_grades_all_products(shirts: GradingShop) -> None:
    await shirts.shop.catalog.put_many([(f"sock-{n}", VariantInput(f"Sock {n}", 9, "CNY")) for n in range(450)])
    await shirts.grade()
    await shirts.execute("UPDATE product_quality SET points = 99")
    totals: list[int] = []
    assert await shirts.grading.recount(totals.append) == 450
    assert totals == [200, 400, 450]
    assert (await shirts.quality.list_products(QualityFilter(grade="A"), None, 9)).items == []


async def test_defect_leaves_a_product_with_its_earlier_grade(
    shirts: GradingShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await shirts.shop.catalog.put_many([(sku, VariantInput(sku, 9, "CNY")) for sku in ("cup", "pan")])
    await shirts.grade()
    await shirts.execute("UPDATE product_quality SET points = 99")

    real = grading.assess

    def broken(facts: Any, policy: Any) -> Any:
        if facts.texts["en"].name == "cup":
            raise RuntimeError("defect")
        return real(facts, policy)

    monkeypatch.setattr(grading, "assess", broken)
    await shirts.execute("UPDATE products SET brand = 'x'")
    await shirts.grade()
    assert ((await shirts.quality.get("cup")).points, shirts.failures) == (99, 1)
    assert (await shirts.quality.get("pan")).points < 99
    assert await shirts.count_notes() == 0


async def test_list_is_filtered_and_paged_with_the_worst_first(shirts: GradingShop) -> None:
    await shirts.shop.catalog.put_many([(f"sock-{n}", VariantInput(f"Sock {n}", 9, "CNY")) for n in range(5)])
    await make_product(shirts.shop)
    await shirts.grade()
    listed_products: list[GradedProduct] = []
    cursor: str | None = None
    while True:
        page = await shirts.quality.list_products(QualityFilter(), cursor, 2)
        listed_products += page.items
        cursor = page.next
        if cursor is None:
            break
    assert [product.product_id for product in listed_products] == [*(f"sock-{n}" for n in range(5)), "shirt"]
    for wanted, expected in (
        (QualityFilter(is_on_sale=False), ["shirt"]),
        (QualityFilter(reason="no_category", is_on_sale=True), [f"sock-{n}" for n in range(5)]),
        (QualityFilter(category_id="shirts"), ["shirt"]),
        (QualityFilter(category_id="mugs"), []),
        (QualityFilter(grade="A"), []),
        (QualityFilter(grade="E", category_id="shirts", reason="no_pictures"), ["shirt"]),
    ):
        listed = (await shirts.quality.list_products(wanted, None, 9)).items
        assert [product.product_id for product in listed] == expected, wanted
    for text in ("", "x", "101-shirt", "-1-shirt", "5-", "٣-shirt"):
        with pytest.raises(Invalid, match="cannot read the cursor"):
            read_cursor(text)
    assert read_cursor("5-a-b") == (5, "a-b")


async def test_product_below_the_grade_is_published_with_a_reason_that_its_change_keeps(shirts: GradingShop) -> None:
    product = await make_product(shirts.shop)
    with pytest.raises(BelowPublishingGrade, match="its grade is E with 47 points, and D is needed") as refused:
        await shirts.shop.products.publish("shirt", PublishStep(product.version, "season begins"), ACTOR)
    assert refused.value.extra["findings"][0].reason == "no_pictures"
    assert (await shirts.shop.products.get("shirt")).status == "draft"
    step = PublishStep(product.version, "season begins", "photographs follow on Monday")
    await shirts.shop.products.publish("shirt", step, ACTOR)
    [change, *_] = (await shirts.shop.products.list_changes("shirt", None, 1)).items
    assert (change.action, change.actor, change.reason) == ("published", ACTOR, "season begins")
    assert change.diff == {
        "status": ["draft", "on_sale"],
        "grade": [None, "E"],
        "anyway": [None, "photographs follow on Monday"],
    }


@pytest.mark.parametrize(("publish_from", "kept"), [("E", {}), ("C", {"grade": [None, "E"], "anyway": [None, "so"]})])
async def test_gate_opens_by_the_grade_of_the_settings(
    shirts: GradingShop, publish_from: Any, kept: dict[str, Any]
) -> None:
    product = await make_product(shirts.shop)
    gate = PublishingGate(shirts.grading, publish_from)
    async with shirts.shop.db.transaction() as connection:
        assert await gate.check(connection, product, "so") == kept
