"""Imports of products: files are stored, checked and applied by jobs, or by a command that waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import BinaryIO
from uuid import UUID

from commerce.catalog.products import PublicationCheck, check_nothing
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.product_imports import store
from commerce.product_imports.applying import ProductApplier
from commerce.product_imports.checking import check_slice
from commerce.product_imports.errors import ImportNotChecked, NoSuchProductImport
from commerce.product_imports.file_parts import store_parts
from commerce.product_imports.model import (
    APPLY,
    CHECK,
    QUEUE,
    ImportFormat,
    LineOutcome,
    ProductImport,
    ReportLine,
)

_LAST_ID = UUID(int=2**128 - 1)


class ProductImports:
    """Imports of products over Postgres.

    `check_publication` may refuse a product that is to go on sale."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, check_publication: PublicationCheck = check_nothing
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._applier = ProductApplier(db, clock, check_publication)

    async def add(self, source: BinaryIO, file_name: str, file_format: ImportFormat, actor: str) -> ProductImport:
        """Store a file, and put the job that checks it. A file that is no text is refused as a whole.

        `source` is read twice from where it stands."""
        import_id, now = self._ids.new(), from_ms(self._clock.now_ms())
        try:
            async with self._db.transaction() as connection:
                await store.insert_import(connection, import_id, file_name, file_format, None, actor, now)
                lines = await store_parts(connection, import_id, source)
                await store.set_lines(connection, import_id, lines)
                await jobs.put(connection, QUEUE, [NewJob(import_id, CHECK, INTERNAL_SYSTEM, now)], now)
        except Invalid as error:
            async with self._db.transaction() as connection:
                await store.insert_import(connection, import_id, file_name, file_format, error.detail, actor, now)
        return await self.get(import_id)

    async def get(self, import_id: UUID) -> ProductImport:
        """Read an import with its counts. Raises `NoSuchProductImport`; old ones are deleted."""
        async with self._db.connection() as connection:
            current = await store.find_import(connection, import_id)
        if current is None:
            raise NoSuchProductImport(f"there is no import {import_id}")
        return current

    async def list_imports(self, before: UUID | None, size: int) -> Page[ProductImport]:
        """List imports, newest first."""
        async with self._db.connection() as connection:
            current = await store.list_imports(connection, before or _LAST_ID, size + 1)
        return to_page(current, size, lambda item: str(item.import_id))

    async def list_lines(
        self, import_id: UUID, after: int, size: int, outcome: LineOutcome | None = None
    ) -> Page[ReportLine]:
        """List records of a report by line, all or those of an outcome. Raises `NoSuchProductImport`."""
        await self.get(import_id)
        async with self._db.connection() as connection:
            lines = await store.list_lines(connection, import_id, after, outcome, size + 1)
        return to_page(lines, size, lambda item: str(item.line))

    async def apply(self, import_id: UUID, actor: str, anyway: str | None = None) -> ProductImport:
        """Put the job that applies a checked import. A repeat changes nothing.

        With the reason `anyway` its products go on sale whatever their quality. Raises `NoSuchProductImport`, or
        `ImportNotChecked` if its report is not ready, the file is refused, or it is applied without that reason."""
        async with self._db.transaction() as connection:
            current = await store.lock_import(connection, import_id)
            if current is not None and current.status in ("checking", "refused"):
                remedy = "wait for its report" if current.status == "checking" else "correct the file and send it again"
                raise ImportNotChecked(f"cannot apply the import: it is {current.status}; {remedy}")
            if current is not None and current.status != "checked" and anyway not in (None, current.anyway):
                raise ImportNotChecked(
                    f"cannot apply the import for another reason: it is {current.status}; send the file again with it"
                )
            if current is not None and current.status == "checked":
                now = from_ms(self._clock.now_ms())
                await store.start_apply(connection, import_id, actor, anyway, now)
                await jobs.put(connection, QUEUE, [NewJob(import_id, APPLY, INTERNAL_SYSTEM, now)], now)
        return await self.get(import_id)

    async def delete_old(self, before: datetime, count: int) -> int:
        """Delete about `count` rows of an import that ended before a moment. Returns how many."""
        async with self._db.transaction() as connection:
            return await store.delete_old(connection, before, count)

    async def work(self, import_id: UUID) -> bool:
        """Check or apply the next products of an import. Returns whether some are left.

        Several processes may: each product is stored once."""
        async with self._db.connection() as connection:
            current = await store.read_import(connection, import_id)
        if current is None:
            return False
        if current.status == "applying":
            return await self._applier.apply_slice(import_id)
        async with self._db.transaction() as connection:
            return await check_slice(connection, import_id, from_ms(self._clock.now_ms()))

    async def finish(self, import_id: UUID, progress: Callable[[int], None] = lambda line: None) -> ProductImport:
        """Do all that an import waits for, and return it. `progress` gets the number of the last line."""
        is_more = True
        while is_more:
            is_more = await self.work(import_id)
            async with self._db.connection() as connection:
                current = await store.read_import(connection, import_id)
            if current is not None:
                progress(current.applied_lines if current.status in ("applying", "applied") else current.checked_lines)
        async with self._db.connection() as connection:
            await jobs.remove(connection, QUEUE, [import_id])
        return await self.get(import_id)
