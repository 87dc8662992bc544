"""`floodgate catalog category` and `floodgate catalog taxonomy` as staff have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.taxonomies import BAGS, write_taxonomy


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    run = make_command(Processes(settings, tmp_path).environment())

    async def run_words(*arguments: object, **variables: str) -> tuple[int, str]:
        status, output = await run("catalog", *arguments, **variables)
        return status, " ".join(output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run_words


async def test_taxonomy_is_checked_imported_and_exported(floodgate: Command, tmp_path: Path) -> None:
    folder = write_taxonomy(tmp_path / "taxonomy")
    status, checked = await floodgate("taxonomy", "import", folder, "--check")
    assert status == 0
    assert "this would change; import without --check" in checked
    assert (await floodgate("category", "show", "lb"))[0] == 1
    status, imported = await floodgate("taxonomy", "import", folder)
    assert status == 0
    assert "categories 5 0 0 0" in imported
    assert "categories.en.txt 7 5 2" in imported
    assert "names: en 14, zh-CN 7" in imported
    assert "nothing to change" in (await floodgate("taxonomy", "import", folder))[1]
    status, exported = await floodgate("taxonomy", "export", tmp_path / "exported")
    assert (status, exported.split(",")[0]) == (0, "9 files")
    report = json.loads((await floodgate("taxonomy", "import", tmp_path / "exported", "--json"))[1])
    assert report["categories"] == {"added": 0, "changed": 0, "unchanged": 5, "absent": 0}
    assert (await floodgate("taxonomy", "export", tmp_path / "exported"))[0] == 1


async def test_faults_of_files_are_printed_with_their_lines(floodgate: Command, tmp_path: Path) -> None:
    files = {"categories/lb_bags.yml": BAGS.replace("  - handle_color", "  - size")}
    status, output = await floodgate("taxonomy", "import", write_taxonomy(tmp_path / "taxonomy", **files))
    assert status == 1
    assert "categories/lb_bags.yml:16: the attribute 'size' of 'lb-1-9' is not in attributes.yml" in output
    assert "1 faults, nothing was imported" in output


async def test_category_is_shown_moved_merged_retired_and_restored(floodgate: Command, tmp_path: Path) -> None:
    await floodgate("taxonomy", "import", write_taxonomy(tmp_path / "taxonomy"))
    status, shown = await floodgate("category", "show", "lb-1-9", "--language", "en")
    assert status == 0
    assert "Bags > Backpacks > School Backpacks" in shown
    assert "handle_color Handle color choices optional lb-1-9 Red, Blue" in shown
    moved = await floodgate("category", "move", "lb-1-9", "--to", "gc", "--reason", "tidy")
    assert "Gift Cards > School Backpacks" in moved[1]
    assert (await floodgate("category", "move", "gc", "--to", "lb-1-9", "--reason", "tidy"))[0] == 1
    assert (await floodgate("category", "move", "gc", "--reason", "tidy"))[0] == 2
    assert (await floodgate("category", "move", "lb-1-9", "--root", "--reason", "tidy"))[0] == 0
    merged = await floodgate("category", "merge", "lb-1", "lb-2", "--reason", "alike")
    assert "retired, merged into lb-2" in merged[1]
    assert "retired" in (await floodgate("category", "retire", "gc", "--reason", "no cards"))[1]
    assert "active" in (await floodgate("category", "restore", "gc", "--reason", "cards"))[1]
    category = json.loads((await floodgate("category", "show", "gc", "--json"))[1])
    assert category["changed_by"].startswith("cli ")
