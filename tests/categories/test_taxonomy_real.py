"""The taxonomy of FLOODGATE_TEST_TAXONOMY: imported twice, exported, imported from there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commerce.categories.taxonomy_import import TaxonomyImport
from ops.services import CliServices

FOLDER = os.environ.get("FLOODGATE_TEST_TAXONOMY")


@pytest.mark.skipif(FOLDER is None, reason="FLOODGATE_TEST_TAXONOMY does not name a folder with the taxonomy")
async def test_whole_taxonomy_is_imported_once_and_exported_without_a_loss(shop: CliServices, tmp_path: Path) -> None:
    taxonomies = TaxonomyImport(shop.db, shop.clock)
    report = await taxonomies.import_folder(Path(str(FOLDER)), "test", "first")
    assert (report.attributes.added, report.choices.added, report.categories.added) == (2_299, 20_635, 10_595)
    assert report.names == {"en": 2_299 + 20_635 + 10_595, "zh-CN": 1_987 + 20_635 + 10_595}
    assert all(file.lines for file in report.files)
    for file in report.files:
        assert file.file.startswith(("attributes.yml", "categories/")) or file.lines == file.entries + file.blank
    again = await taxonomies.import_folder(Path(str(FOLDER)), "test", "second")
    assert not again.has_changes
    assert again.categories.unchanged == 10_595
    await taxonomies.export_folder(tmp_path / "exported")
    exported = await taxonomies.import_folder(tmp_path / "exported", "test", "third")
    assert not exported.has_changes
    assert exported.names == report.names
