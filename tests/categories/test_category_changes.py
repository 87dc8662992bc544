"""Changes of the tree by staff: moves, merges, retirements, races between them, and their record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from commerce.categories import store
from commerce.categories.assignment import lock_category, read_definitions
from commerce.categories.attribute_values import validate_attributes
from commerce.categories.errors import (
    BadCategory,
    CategoryLoop,
    CategoryRetired,
    CategoryVersionConflict,
    NoSuchAttribute,
    NoSuchCategory,
    TooManyCategories,
)
from commerce.categories.model import (
    MAX_DEPTH,
    AttributeInput,
    CategoryAction,
    CategoryInput,
    CategoryMerge,
    CategoryMove,
    ChoiceInput,
)
from commerce.categories.service import Categories
from commerce.kernel.postgres import Connection
from ops.services import CliServices
from tests.support.taxonomies import import_small_taxonomy

ACTOR = "staff ann"
ACTION = CategoryAction(reason="not sold any more")


@pytest.fixture
async def categories(shop: CliServices, tmp_path: Path) -> Categories:
    """Categories gc, lb > lb-1 > lb-1-9 and lb > lb-2."""
    await import_small_taxonomy(shop, tmp_path / "taxonomy")
    return shop.categories


async def put(categories: Categories, category_id: str, parent_id: str | None, **more: Any) -> None:
    fields = {"names": {"en": category_id}, "reason": "new", **more}
    await categories.put(category_id, CategoryInput(parent_id=parent_id, **fields), ACTOR)


async def move(categories: Categories, category_id: str, parent_id: str | None) -> None:
    await categories.move(category_id, CategoryMove(parent_id=parent_id, reason="tidy"), ACTOR)


async def path_of(categories: Categories, category_id: str) -> list[str]:
    return [part.category_id for part in (await categories.get(category_id)).path]


async def kinds_of(categories: Categories, category_id: str) -> list[str]:
    return [change.kind for change in (await categories.list_changes(category_id, None, None, 10)).items]


async def test_move_takes_all_below_with_it_and_is_recorded(categories: Categories) -> None:
    await move(categories, "lb-1", "gc")
    assert await path_of(categories, "lb-1-9") == ["gc", "lb-1", "lb-1-9"]
    await move(categories, "lb-1", "gc")
    await move(categories, "lb-1", None)
    assert await path_of(categories, "lb-1-9") == ["lb-1", "lb-1-9"]
    changes = (await categories.list_changes("lb-1", None, None, 10)).items
    assert [change.kind for change in changes] == ["moved", "moved", "created"]
    assert changes[0].details == {"parent_id": ["gc", None]}
    assert (changes[0].actor, changes[0].reason) == (ACTOR, "tidy")


@pytest.mark.parametrize("parent", ["lb-1", "lb-1-9"])
async def test_move_below_itself_is_refused(categories: Categories, parent: str) -> None:
    with pytest.raises(CategoryLoop, match="stands below it"):
        await move(categories, "lb-1", parent)
    assert await path_of(categories, "lb-1-9") == ["lb", "lb-1", "lb-1-9"]


async def test_two_moves_at_once_make_no_loop(categories: Categories) -> None:
    for number in range(10):
        await put(categories, f"a-{number}", None)
        await put(categories, f"b-{number}", None)
        outcomes = await asyncio.gather(
            move(categories, f"a-{number}", f"b-{number}"),
            move(categories, f"b-{number}", f"a-{number}"),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["CategoryLoop", "NoneType"]
        depths = sorted([len(await path_of(categories, f"a-{number}")), len(await path_of(categories, f"b-{number}"))])
        assert depths == [1, 2]


async def test_row_that_stands_in_its_own_path_is_refused_by_the_database(
    categories: Categories, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "UPDATE categories SET parent_id = 'lb-1-9', path = '{lb-1,lb-1-9,lb-1}' WHERE category_id = 'lb-1'"
        )
    with pytest.raises(asyncpg.CheckViolationError, match="it is the record"):
        await connection.execute("DELETE FROM category_changes")
    await connection.close()


async def test_tree_has_a_depth_that_neither_new_nor_moved_categories_pass(categories: Categories) -> None:
    parent = None
    for level in range(MAX_DEPTH):
        await put(categories, f"level-{level}", parent)
        parent = f"level-{level}"
    with pytest.raises(TooManyCategories, match="levels deep"):
        await put(categories, "too-deep", parent)
    with pytest.raises(TooManyCategories, match="levels deep"):
        await move(categories, "lb-1", f"level-{MAX_DEPTH - 2}")
    await move(categories, "lb-1-9", f"level-{MAX_DEPTH - 2}")


async def test_merge_moves_children_and_products_and_answers_the_old_id(
    shop: CliServices, categories: Categories
) -> None:
    moved = list[tuple[str, str]]()

    async def move_products(connection: Connection, category_id: str, into: str) -> int:
        assert connection.is_in_transaction()
        moved.append((category_id, into))
        return 7

    merging = Categories(shop.db, shop.clock, move_products)
    merge = CategoryMerge(into="lb-2", reason="alike")
    merged = await merging.merge("lb-1", merge, ACTOR)
    assert (merged.status, merged.merged_into) == ("retired", "lb-2")
    assert await path_of(categories, "lb-1-9") == ["lb", "lb-2", "lb-1-9"]
    assert await merging.merge("lb-1", merge, ACTOR) == merged
    assert moved == [("lb-1", "lb-2")]
    change = (await categories.list_changes("lb-1", None, None, 1)).items[0]
    assert change.details == {"into": "lb-2", "children": ["lb-1-9"], "products": 7}
    await merging.merge("lb-2", CategoryMerge(into="gc", reason="alike"), ACTOR)
    assert (await categories.get("lb-1")).merged_into == "gc", "what was merged before follows"
    with pytest.raises(CategoryRetired) as refused:
        await put(categories, "new", "lb-1")
    assert refused.value.extra == {"merged_into": "gc"}
    with pytest.raises(CategoryRetired):
        await merging.merge("lb-1", CategoryMerge(into="lb", reason="again"), ACTOR)


async def test_merge_into_itself_or_below_or_into_a_retired_one_is_refused(categories: Categories) -> None:
    for into in ("lb", "lb-1-9"):
        with pytest.raises(CategoryLoop):
            await categories.merge("lb", CategoryMerge(into=into, reason="alike"), ACTOR)
    await categories.retire("gc", ACTION, ACTOR)
    with pytest.raises(CategoryRetired):
        await categories.merge("lb", CategoryMerge(into="gc", reason="alike"), ACTOR)
    with pytest.raises(NoSuchCategory):
        await categories.merge("lb", CategoryMerge(into="nowhere", reason="alike"), ACTOR)


async def test_merge_without_its_products_changes_nothing(shop: CliServices, categories: Categories) -> None:
    async def fail(connection: Connection, category_id: str, into: str) -> int:
        raise RuntimeError

    before = await categories.get("lb-1")
    with pytest.raises(RuntimeError):
        await Categories(shop.db, shop.clock, fail).merge("lb-1", CategoryMerge(into="gc", reason="alike"), ACTOR)
    assert await categories.get("lb-1") == before
    assert await path_of(categories, "lb-1-9") == ["lb", "lb-1", "lb-1-9"]


async def test_retired_category_takes_no_products_and_no_children_until_it_is_restored(
    shop: CliServices, categories: Categories
) -> None:
    with pytest.raises(BadCategory, match="has children"):
        await categories.retire("lb-1", ACTION, ACTOR)
    await categories.retire("lb-1-9", ACTION, ACTOR)
    await categories.retire("lb-1-9", ACTION, ACTOR)
    async with shop.db.transaction() as connection:
        await lock_category(connection, "lb-2")
        with pytest.raises(CategoryRetired, match="restore it"):
            await lock_category(connection, "lb-1-9")
        with pytest.raises(NoSuchCategory):
            await lock_category(connection, "nowhere")
    with pytest.raises(CategoryRetired):
        await move(categories, "gc", "lb-1-9")
    await categories.retire("lb-1", ACTION, ACTOR)
    with pytest.raises(CategoryRetired):
        await categories.restore("lb-1-9", ACTION, ACTOR)
    await categories.restore("lb-1", ACTION, ACTOR)
    await categories.restore("lb-1-9", ACTION, ACTOR)
    assert await kinds_of(categories, "lb-1-9") == ["restored", "retired", "created"]


async def test_retirement_waits_for_a_product_that_is_being_put_into_the_category(
    shop: CliServices, categories: Categories
) -> None:
    async with shop.db.transaction() as connection:
        await lock_category(connection, "gc")
        retiring = asyncio.create_task(categories.retire("gc", ACTION, ACTOR))
        _, waiting = await asyncio.wait([retiring], timeout=0.3)
        assert waiting, "it does not end before the product is stored"
    assert (await retiring).status == "retired"


async def test_change_from_an_older_version_is_refused_with_the_present_one(categories: Categories) -> None:
    version = (await categories.get("gc")).version
    await put(categories, "gc", None, names={"en": "Vouchers"}, version=version)
    with pytest.raises(CategoryVersionConflict) as refused:
        await put(categories, "gc", None, names={"en": "Cards"}, version=version)
    assert refused.value.extra == {"version": version + 1}
    with pytest.raises(CategoryVersionConflict):
        await categories.retire("gc", CategoryAction(version=version, reason="old"), ACTOR)
    with pytest.raises(CategoryVersionConflict, match="does not exist"):
        await put(categories, "new", None, version=1)


async def test_put_of_the_same_changes_nothing_and_another_parent_needs_a_move(categories: Categories) -> None:
    before = await categories.get("lb-2")
    same = {"names": before.names, "attributes": before.own_attributes}
    await put(categories, "lb-2", "lb", **same)
    assert await categories.get("lb-2") == before
    with pytest.raises(BadCategory, match="move it") as refused:
        await put(categories, "lb-2", "gc", **same)
    assert refused.value.extra["errors"][0]["pointer"] == "/parent_id"
    with pytest.raises(BadCategory) as unknown:
        await put(categories, "lb-2", "lb", attributes={"size/fit": "required"})
    assert unknown.value.extra["errors"][0]["pointer"] == "/attributes/size~1fit"


async def test_nearest_rule_of_a_path_counts(shop: CliServices, categories: Categories) -> None:
    await put(categories, "lb", None, names={"en": "Bags"}, attributes={"color": "required"})
    async with shop.db.connection() as connection:
        definitions = await read_definitions(connection, ["lb", "lb-1", "lb-1-9", "lb-2", "gc", "nowhere"])
    assert definitions["lb-2"]["color"].rule == "required"
    assert definitions["lb-1-9"].keys() == {"bag/features", "handle_color"}, "a child can exclude what its parent has"
    assert definitions["lb-1-9"]["handle_color"].choices == {"color__red", "color__blue"}, "those of another attribute"
    assert definitions["gc"] == definitions["nowhere"] == {}
    assert validate_attributes(definitions["lb-2"], {"color": ["color__red"]}) == []
    attribute = {attribute.attribute_id: attribute for attribute in (await categories.get("lb-2")).attributes}["color"]
    assert (attribute.rule, attribute.defined_in) == ("required", "lb")


def attribute(kind: str = "choices", **fields: Any) -> AttributeInput:
    if kind in ("choice", "choices") and "choices_of" not in fields:
        fields.setdefault("choices", [ChoiceInput(choice_id="fit__slim", names={"en": "Slim"})])
    return AttributeInput(kind=kind, names={"en": "Fit"}, reason="new", **fields)  # type: ignore[arg-type]


async def test_attribute_keeps_its_kind_and_retires_choices_that_are_left_out(categories: Categories) -> None:
    wide = ChoiceInput(choice_id="fit__wide", names={"en": "Wide", "zh-CN": "宽松"})
    await categories.put_attribute("fit", attribute(), ACTOR)
    changed = await categories.put_attribute("fit", attribute(choices=[wide]), ACTOR)
    assert {choice.choice_id: choice.status for choice in changed.choices} == {
        "fit__slim": "retired",
        "fit__wide": "active",
    }
    assert await categories.put_attribute("fit", attribute(choices=[wide]), ACTOR) == changed
    with pytest.raises(BadCategory, match="kind"):
        await categories.put_attribute("fit", attribute("text"), ACTOR)
    with pytest.raises(BadCategory) as taken:
        await categories.put_attribute("size", attribute(), ACTOR)
    assert taken.value.extra["errors"] == [{"pointer": "/choices/0/choice_id", "detail": "is a choice of 'fit'"}]
    with pytest.raises(NoSuchAttribute):
        await categories.put_attribute("size", attribute(choices_of="nothing"), ACTOR)
    with pytest.raises(BadCategory, match="no choices of its own"):
        await categories.put_attribute("size", attribute(choices_of="handle_color"), ACTOR)
    changes = (await categories.list_changes(None, "fit", None, 10)).items
    assert [change.kind for change in changes] == ["changed", "created"]


async def test_lists_go_on_from_a_cursor(categories: Categories) -> None:
    first = await categories.list_attributes(None, 2)
    assert [item.attribute_id for item in first.items] == ["bag/features", "color"]
    assert [item.choice_count for item in first.items] == [4, 2]
    rest = await categories.list_attributes(first.next, 2)
    assert [(item.attribute_id, item.choice_count) for item in rest.items] == [("handle_color", 2)]
    changes = await categories.list_changes(None, None, None, 3)
    older = await categories.list_changes(None, None, int(changes.next or 0), 100)
    assert len({change.change_no for change in [*changes.items, *older.items]}) == 3 + len(older.items)


async def test_tree_version_counts_changes(shop: CliServices, categories: Categories) -> None:
    async with shop.db.connection() as connection:
        before = await store.read_tree_version(connection)
        await put(categories, "new", None)
        await put(categories, "new", None)
        assert await store.read_tree_version(connection) == before + 1
