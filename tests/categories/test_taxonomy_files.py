"""Imports of a taxonomy: names joined to ids, faults with file and line, repeats, exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from commerce.categories import taxonomy_store
from commerce.categories.errors import BadTaxonomy, CategoryVersionConflict
from commerce.categories.model import (
    AttributeInput,
    CategoryAction,
    CategoryInput,
    CategoryMerge,
    CategoryMove,
    ChoiceInput,
)
from commerce.categories.taxonomy import Counts, FileLines, TaxonomyReport
from commerce.categories.taxonomy_reader import read_taxonomy
from commerce.kernel.errors import Invalid
from ops.services import CliServices
from tests.support.taxonomies import ATTRIBUTES, BAGS, NAMES, write_taxonomy

GID = "gid://shopify/Taxonomy"


async def import_files(shop: CliServices, folder: Path, *, is_check: bool = False) -> TaxonomyReport:
    return await shop.taxonomies.import_folder(folder, "cli ann", "first", is_check=is_check)


async def read_rows(shop: CliServices) -> Any:
    async with shop.db.snapshot() as connection:
        return await taxonomy_store.read_all(connection)


@pytest.mark.parametrize("packed", [False, True])
async def test_import_has_all_names_and_a_repeat_changes_nothing(
    shop: CliServices, tmp_path: Path, packed: bool
) -> None:
    folder = write_taxonomy(tmp_path / "taxonomy", packed=packed)
    checked = await import_files(shop, folder, is_check=True)
    assert checked.has_changes
    assert (await read_rows(shop)).categories == {}
    report = await import_files(shop, folder)
    assert (report.attributes, report.choices, report.categories) == (Counts(3), Counts(6), Counts(5))
    assert report.names == {"en": 14, "zh-CN": 7}
    end = ".gz" if packed else ""
    assert FileLines(f"categories.en.txt{end}", 7, 5, 2) in report.files
    assert sum(file.entries for file in report.files) == 3 + 5 + 2 + 2 + 6 + 3 + 5 + 2
    bag = await shop.categories.get_attribute("bag/features")
    assert {choice.choice_id.partition("__")[2]: choice.names["en"] for choice in bag.choices} == {
        "ant": "ANT",
        "ant+": "ANT+",
        "2_5_mm": "2.5 mm",
        "polish_zloty_pln": "Polish Złoty (PLN)",
    }
    assert (bag.kind, bag.names, bag.descriptions) == (
        "choices",
        {"en": "Bag features", "zh-CN": "箱包特征"},
        {"en": "Describes a bag"},
    )
    assert (await shop.categories.get("lb-1")).names == {"en": "Backpacks", "zh-CN": "双肩包"}
    before = await read_rows(shop)
    again = await import_files(shop, folder)
    assert (again.has_changes, again.categories) == (False, Counts(unchanged=5))
    assert await read_rows(shop) == before


async def test_import_records_each_entry(shop: CliServices, tmp_path: Path) -> None:
    await import_files(shop, write_taxonomy(tmp_path / "taxonomy"))
    changes = (await shop.categories.list_changes(None, None, None, 100)).items
    assert [change.kind for change in changes[:2]] == ["imported", "created"]
    assert changes[0].details["categories"] == {"added": 5, "changed": 0, "unchanged": 0, "absent": 0}
    assert len(changes) == 1 + 5 + 3
    assert {(change.actor, change.reason) for change in changes} == {("cli ann", "first")}


async def test_changed_files_leave_other_entries(shop: CliServices, tmp_path: Path) -> None:
    await import_files(shop, write_taxonomy(tmp_path / "first"))
    own = CategoryInput(parent_id="lb-2", names={"en": "Our own"}, attributes={"color": "excluded"}, reason="new")
    await shop.categories.put("own", own, "staff ann")
    required = CategoryInput(parent_id=None, names={"de": "Taschen"}, attributes={"color": "required"}, reason="law")
    await shop.categories.put("lb", required, "staff ann")
    moved = BAGS.replace("  - lb-1-9\n", "").replace("  - lb-2\n", "  - lb-2\n  - lb-1-9\n", 1)
    moved = moved.replace("- id: lb-1\n  name: Backpacks\n  children:\n", "- id: lb-1\n  name: Backpacks\n")
    names = {
        "categories/lb_bags.yml": moved.replace("Totes", "Tote Bags"),
        "categories.en.txt": NAMES["categories.en.txt"]
        .replace("Totes", "Tote Bags")
        .replace("Bags > Backpacks > School", "Bags > School"),
    }
    report = await import_files(shop, write_taxonomy(tmp_path / "second", **names))
    assert report.categories == Counts(changed=3, unchanged=2, absent=1)
    assert [part.category_id for part in (await shop.categories.get("lb-1-9")).path] == ["lb", "lb-1-9"]
    bags = await shop.categories.get("lb")
    assert bags.names == {"de": "Taschen", "en": "Bags", "zh-CN": "箱包"}
    assert bags.own_attributes == {"color": "required"}
    assert (await shop.categories.get("lb-2")).names["en"] == "Tote Bags"
    assert (await shop.categories.get("own")).own_attributes == {"color": "excluded"}


async def test_export_is_imported_without_a_change_after_all_kinds_of_changes(
    shop: CliServices, tmp_path: Path
) -> None:
    await import_files(shop, write_taxonomy(tmp_path / "taxonomy"))
    changes, actor, action = shop.categories, "staff ann", CategoryAction(reason="tidy")
    slim = ChoiceInput(choice_id="fit__slim", names={"en": 'Slim: "a" [b] #c', "fr": "Étroit"})
    choice = AttributeInput(kind="choice", names={"zh-CN": "版型"}, choices=[slim], reason="new")
    await changes.put_attribute("fit", choice, actor)
    number = AttributeInput(kind="number", unit="cm", names={"en": "Height"}, reason="new")
    await changes.put_attribute("height", number, actor)
    rules: dict[str, Any] = {"color": "excluded", "height": "required", "fit": "optional"}
    own = CategoryInput(parent_id="lb-1", names={"fr": "À nous: - x"}, attributes=rules, reason="new")
    await changes.put("own", own, actor)
    await changes.put("aaa", CategoryInput(parent_id=None, names={"en": "First"}, reason="new"), actor)
    await changes.move("lb-1-9", CategoryMove(parent_id=None, reason="tidy"), actor)
    await changes.merge("gc", CategoryMerge(into="own", reason="alike"), actor)
    await changes.retire("lb-2", action, actor)
    await shop.taxonomies.export_folder(tmp_path / "exported")
    before = await read_rows(shop)
    report = await import_files(shop, tmp_path / "exported")
    assert not report.has_changes
    assert await read_rows(shop) == before
    with pytest.raises(Invalid, match="not empty"):
        await shop.taxonomies.export_folder(tmp_path / "exported")


async def test_exported_taxonomy_fills_an_empty_shop(shop: CliServices, tmp_path: Path, database_url: str) -> None:
    await import_files(shop, write_taxonomy(tmp_path / "taxonomy"))
    await shop.categories.retire("gc", CategoryAction(reason="tidy"), "staff ann")
    await shop.categories.merge("lb-2", CategoryMerge(into="lb-1", reason="alike"), "staff ann")
    before = await read_rows(shop)
    await shop.taxonomies.export_folder(tmp_path / "exported")
    connection = await asyncpg.connect(database_url)
    await connection.execute("SET session_replication_role = replica")  # products have a history, which is kept
    await connection.execute("TRUNCATE categories, attributes, choices CASCADE")
    await connection.close()
    await import_files(shop, tmp_path / "exported")
    after = await read_rows(shop)
    for part in ("category_names", "attribute_names", "descriptions", "choices", "choice_names"):
        assert getattr(after, part) == getattr(before, part), part
    assert {key: (row.path, row.status, row.merged_into) for key, row in after.categories.items()} == {
        key: (row.path, row.status, row.merged_into) for key, row in before.categories.items()
    }


FAULTS = [
    ("attributes.yml", ATTRIBUTES.replace("  values:\n", "  values: [\n", 1), "attributes.yml:", "not YAML"),
    ("attributes.yml", ATTRIBUTES.replace("color__blue", "color blue"), "attributes.yml:3", "Expected `str` matching"),
    ("attributes.yml", ATTRIBUTES.replace("  - color__blue\n", "  - color__red\n"), "attributes.yml:3", "second time"),
    ("attributes.yml", ATTRIBUTES.replace("values_from: color", "values_from: shape"), "attributes.yml:23", "'shape'"),
    ("attributes.yml", ATTRIBUTES.replace("- color__blue", "- color__green"), "attribute_values.en.txt:4", "no such"),
    ("attributes.yml", ATTRIBUTES.replace("name: Bag features", "name: [a]"), "attributes.yml:12", "name"),
    ("attributes.yml", "just a text", "categories/lb_bags.yml:2", "not in attributes.yml"),
    ("attributes.yml", "\x00\x01", "attributes.yml", "it is not"),
    ("categories/lb_bags.yml", BAGS.replace("- lb-2\n", "- lb-3\n", 1), "categories/lb_bags.yml:2", "'lb-3'"),
    ("categories/lb_bags.yml", BAGS.replace("  - lb-1-9\n", "  - lb\n"), "categories/lb_bags.yml:2", "loop"),
    ("categories/lb_bags.yml", BAGS.replace("  - lb-1-9\n", "  - lb-2\n"), "categories/lb_bags.yml:9", "child of"),
    ("categories/lb_bags.yml", BAGS.replace("- id: lb-2", "- id: gc"), "categories/lb_bags.yml:22", "second time"),
    (
        "categories/lb_bags.yml",
        BAGS.replace("- id: lb-1\n", "- id: lb-1\n  id: lb-1\n"),
        "categories/lb",
        "second time",
    ),
    ("categories/lb_bags.yml", BAGS.replace("  - handle_color", "  - size"), "categories/lb_bags.yml:16", "'size'"),
    ("categories/lb_bags.yml", BAGS.replace("name: Totes", "name: ''"), "categories/lb_bags.yml:22", "name"),
    ("categories/lb_bags.yml", f"{'[' * 100_000}", "categories/lb_bags.yml", "nest"),
    ("categories.en.txt", f"{GID}Category/nn : Nothing\n", "categories.en.txt:1", "no category 'nn'"),
    ("categories.en.txt", f"{GID}Category/lb-1 : Sacks\n{GID}Category/lb : Bags\n", "categories.en.txt:1", "parent"),
    ("categories.en.txt", "lb : Bags\n", "categories.en.txt:1", "not `gid"),
    ("categories.en.txt", f"{GID}Category/lb : ---\n", "categories.en.txt:1", "at least one letter"),
    ("attributes.en.txt", f"{GID}Attribute/9 : Nothing\n", "attributes.en.txt:1", "no attribute '9'"),
    ("attribute_values.zh-CN.txt", f"{GID}Value/99 : 红 [颜色]\n", "attribute_values.zh-CN.txt:1", "number '99'"),
    ("attribute_values.zh-CN.txt", f"{GID}Value/11 : 红\n", "attribute_values.zh-CN.txt:1", "in brackets"),
    ("attribute_values.en.txt", f"{GID}Value/11 : Red [Color]\n", "attributes.yml:3", "has no name"),
    ("categories.Zürich.txt", "", "categories.Zürich.txt", "not a language"),
]


@pytest.mark.parametrize(("file", "text", "place", "reason"), FAULTS, ids=[f"{row[2]} {row[3]}" for row in FAULTS])
async def test_fault_is_reported_with_file_and_line_and_nothing_is_imported(
    shop: CliServices, tmp_path: Path, file: str, text: str, place: str, reason: str
) -> None:
    folder = write_taxonomy(tmp_path / "taxonomy", **{file: text})
    with pytest.raises(BadTaxonomy) as refused:
        await import_files(shop, folder)
    faults = refused.value.extra["errors"]
    assert any(fault["pointer"].startswith(place) and reason in fault["detail"] for fault in faults), faults
    assert (await read_rows(shop)).attributes == {}


def test_missing_and_packed_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(BadTaxonomy, match=r"attributes.yml: the file is missing"):
        read_taxonomy(tmp_path)
    folder = write_taxonomy(tmp_path / "taxonomy")
    (folder / "attributes.yml.gz").write_bytes(b"")
    with pytest.raises(BadTaxonomy, match="plain and packed"):
        read_taxonomy(folder)
    (folder / "attributes.yml").unlink()
    with pytest.raises(BadTaxonomy, match=r"attributes\.yml\.gz: it ends too early"):
        read_taxonomy(folder)
    (folder / "attributes.yml.gz").write_bytes(b"no gzip")
    with pytest.raises(BadTaxonomy, match="cannot be unpacked"):
        read_taxonomy(folder)
    with pytest.raises(BadTaxonomy, match="is no folder"):
        read_taxonomy(tmp_path / "nowhere")


def test_aliases_which_can_repeat_values_without_an_end_are_refused(tmp_path: Path) -> None:
    text = ATTRIBUTES.replace("values:", "values: &all", 1).replace("values_from: color", "values: *all")
    with pytest.raises(BadTaxonomy, match="line 27 has an alias"):
        read_taxonomy(write_taxonomy(tmp_path / "taxonomy", **{"attributes.yml": text}))


async def test_change_during_an_import_ends_it(
    shop: CliServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all = taxonomy_store.read_all

    async def read_and_change(connection: Any) -> Any:
        rows = await read_all(connection)
        await shop.categories.put("new", CategoryInput(parent_id=None, names={"en": "N"}, reason="new"), "staff ann")
        return rows

    monkeypatch.setattr(taxonomy_store, "read_all", read_and_change)
    with pytest.raises(CategoryVersionConflict, match="repeat it"):
        await import_files(shop, write_taxonomy(tmp_path / "taxonomy"))
    monkeypatch.undo()
    assert (await read_rows(shop)).categories.keys() == {"new"}


async def test_import_that_fails_in_the_middle_leaves_nothing(
    shop: CliServices, tmp_path: Path, database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE category_names ADD CHECK (name <> 'Totes')")
    with pytest.raises(asyncpg.CheckViolationError):
        await import_files(shop, write_taxonomy(tmp_path / "taxonomy"))
    rows = await read_rows(shop)
    assert not rows.attributes
    assert not rows.categories
    await connection.execute("ALTER TABLE category_names DROP CONSTRAINT category_names_name_check1")
    await connection.close()
    assert (await import_files(shop, tmp_path / "taxonomy")).categories == Counts(5)
