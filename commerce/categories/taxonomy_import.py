"""Imports a taxonomy from files, and exports it to files in the same format."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from commerce.categories import store, taxonomy_store
from commerce.categories.errors import CategoryVersionConflict
from commerce.categories.store import ChangeRow
from commerce.categories.taxonomy import Taxonomy, TaxonomyReport
from commerce.categories.taxonomy_changes import compare_taxonomy
from commerce.categories.taxonomy_export import write_files
from commerce.categories.taxonomy_reader import read_taxonomy
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database


class TaxonomyImport:
    """Imports and exports of all categories and attributes, over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def import_folder(self, folder: Path, actor: str, reason: str, *, is_check: bool = False) -> TaxonomyReport:
        """Import the files of a folder in one transaction, or with `is_check` only say what would change.

        A repeat changes nothing. Raises `BadTaxonomy` with file, line and reason of each fault, or
        `CategoryVersionConflict` if somebody changes categories at the same time.
        """
        taxonomy = await asyncio.to_thread(read_taxonomy, folder)
        async with self._db.snapshot() as connection:
            version = await store.read_tree_version(connection)
            rows = await taxonomy_store.read_all(connection)
        # Outside of a transaction, which Postgres would end meanwhile.
        changes = await asyncio.to_thread(compare_taxonomy, taxonomy, rows)
        report = TaxonomyReport(
            is_check=is_check,
            files=taxonomy.files,
            unknown_fields=taxonomy.unknown_fields,
            names=_count_names(taxonomy),
            attributes=changes.attributes,
            choices=changes.choices,
            categories=changes.categories,
        )
        if is_check or not report.has_changes:
            return report
        counts = {"attributes": report.attributes, "choices": report.choices, "categories": report.categories}
        summary = ChangeRow("imported", None, None, counts)
        async with self._db.transaction() as connection:
            await store.lock_tree(connection)
            if await store.read_tree_version(connection) != version:
                raise CategoryVersionConflict("somebody has changed categories during the import; repeat it")
            now = from_ms(self._clock.now_ms())
            await taxonomy_store.write_all(connection, changes.writes, actor, now)
            await store.insert_changes(connection, [*changes.changes, summary], now, actor, reason)
        return report

    async def export_folder(self, folder: Path) -> dict[str, int]:
        """Write all categories and attributes to an empty folder. Returns the lines of each file.

        Raises `Invalid` if the folder has files already.
        """
        async with self._db.snapshot() as connection:
            rows = await taxonomy_store.read_all(connection)
        return await asyncio.to_thread(write_files, folder, rows)


def _count_names(taxonomy: Taxonomy) -> dict[str, int]:
    """Count the names of the files by language."""
    counts = Counter[str]()
    for attribute in taxonomy.attributes.values():
        counts.update(attribute.names.keys())
    for names in taxonomy.choice_names.values():
        counts.update(names.keys())
    for category in taxonomy.categories.values():
        counts.update(category.names.keys())
    return dict(sorted(counts.items()))
