"""Rows of imports of products, of their files and their reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.product_imports.model import (
    ImportFormat,
    ImportStatus,
    LineFault,
    LineOutcome,
    ProductImport,
    ProductResult,
    ReportLine,
)
from commerce.product_imports.variant_plan import PlannedVariant


class LockedImport(NamedTuple):
    """An import as a step of its work needs it."""

    import_id: UUID
    format: ImportFormat
    status: ImportStatus
    columns: list[str]
    lines: int
    checked_lines: int
    applied_lines: int
    file_name: str
    applied_by: str | None
    anyway: str | None


class NewLine(NamedTuple):
    """A record of a report. `group_line` is the first line of its product."""

    line: int
    outcome: LineOutcome
    group_line: int
    product_id: str | None
    sku: str | None
    columns: list[str]
    faults: list[LineFault]


class LineCounts(NamedTuple):
    """The last line that a step has read, and its lines by what they are."""

    checked_lines: int
    blank: int
    continued: int
    created: int
    changed: int
    unchanged: int
    refused: int
    products: int


queries = load_queries(
    __package__,
    product_imports=tuple(name for name in ProductImport.__struct_fields__ if name != "unread_lines"),
    locked_imports=LockedImport._fields,
)
_read_faults = msgspec.json.Decoder(list[LineFault]).decode


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def insert_import(
    connection: Connection,
    import_id: UUID,
    file_name: str,
    file_format: ImportFormat,
    reason: str | None,
    actor: str,
    now: datetime,
) -> None:
    """Insert an import that has no lines yet; with a reason it is refused."""
    status = "checking" if reason is None else "refused"
    await connection.execute(queries.insert_import, import_id, file_name, file_format, status, reason, 0, now, actor)


async def insert_part(connection: Connection, import_id: UUID, first_line: int, content: bytes) -> None:
    await connection.execute(queries.insert_part, import_id, first_line, content)


async def set_lines(connection: Connection, import_id: UUID, lines: int) -> None:
    await connection.execute(queries.set_lines, import_id, lines)


async def find_import(connection: Connection, import_id: UUID) -> ProductImport | None:
    row = await connection.fetchrow(queries.find_import, import_id)
    return None if row is None else _to_import(row)


async def list_imports(connection: Connection, before: UUID, count: int) -> list[ProductImport]:
    """List imports before one, newest first."""
    return [_to_import(row) for row in await connection.fetch(queries.list_imports, before, count)]


def _to_import(row: Any) -> ProductImport:
    values: dict[str, Any] = dict(row)
    unread = values["lines"] - values["checked_lines"] if values["status"] == "refused" else 0
    return ProductImport(**values, unread_lines=unread)


async def lock_import(connection: Connection, import_id: UUID) -> LockedImport | None:
    row = await connection.fetchrow(queries.lock_import, import_id)
    return None if row is None else LockedImport(*row)


async def read_import(connection: Connection, import_id: UUID) -> LockedImport | None:
    row = await connection.fetchrow(queries.read_import, import_id)
    return None if row is None else LockedImport(*row)


async def read_part(connection: Connection, import_id: UUID, line: int) -> tuple[int, bytes] | None:
    """Read the part with a line: the number of its first line, and its content."""
    row = await connection.fetchrow(queries.read_part, import_id, line)
    return None if row is None else (row["first_line"], row["content"])


async def set_header(
    connection: Connection, import_id: UUID, columns: Sequence[str], lines: int, blank: int, now: datetime
) -> None:
    """Record the columns of a file, and the lines before its first product."""
    await connection.execute(queries.set_header, import_id, columns, lines, blank, now)


async def refuse_import(
    connection: Connection, import_id: UUID, reason: str, records: int, blank: int, continued: int, now: datetime
) -> None:
    """Refuse a whole file after its header."""
    await connection.execute(queries.refuse_import, import_id, reason, records, blank, continued, now)


async def add_counts(connection: Connection, import_id: UUID, counts: LineCounts, now: datetime) -> None:
    await connection.execute(queries.add_counts, import_id, *counts, now)


async def end_check(connection: Connection, import_id: UUID, now: datetime) -> None:
    await connection.execute(queries.end_check, import_id, now)
    await connection.execute(queries.delete_keys, import_id)


async def add_keys(connection: Connection, import_id: UUID, keys: Mapping[str, int]) -> dict[str, int]:
    """Record the first line of each key, and return the first lines of all of them."""
    await connection.execute(queries.add_keys, import_id, list(keys), list(keys.values()))
    rows = await connection.fetch(queries.list_keys, import_id, list(keys))
    return {row["key"]: row["line"] for row in rows}


async def insert_lines(connection: Connection, import_id: UUID, lines: Sequence[NewLine]) -> None:
    """Insert records of a report."""
    await connection.execute(
        queries.insert_lines,
        import_id,
        [line.line for line in lines],
        [line.outcome for line in lines],
        [line.group_line for line in lines],
        [line.product_id for line in lines],
        [line.sku for line in lines],
        [_json(line.columns) for line in lines],
        [_json(line.faults) for line in lines],
    )


async def insert_items(connection: Connection, import_id: UUID, items: Sequence[tuple[int, str, bytes | None]]) -> None:
    """Insert products to create or change as (line, product_id, digest of what was seen)."""
    columns = ([item[at] for item in items] for at in range(3))
    await connection.execute(queries.insert_items, import_id, *columns)


async def list_lines(
    connection: Connection, import_id: UUID, after: int, outcome: LineOutcome | None, count: int
) -> list[ReportLine]:
    """List records of a report after a line, all or those of an outcome."""
    rows = await connection.fetch(queries.list_lines, import_id, after, outcome, count)
    return [ReportLine(**{**row, "faults": _read_faults(row["faults"])}) for row in rows]


async def start_apply(connection: Connection, import_id: UUID, actor: str, anyway: str | None, now: datetime) -> None:
    await connection.execute(queries.start_apply, import_id, actor, now, anyway)


async def list_open_items(
    connection: Connection, import_id: UUID, first_line: int, last_line: int
) -> dict[int, bytes | None]:
    """Return the digests of products of these lines that have no result yet, by line."""
    rows = await connection.fetch(queries.list_open_items, import_id, first_line, last_line)
    return {row["line"]: row["digest"] for row in rows}


async def lock_item(connection: Connection, import_id: UUID, line: int) -> bool:
    """Lock a product that has no result yet. Returns False if it has, or if another process works on it."""
    return bool(await connection.fetchval(queries.lock_item, import_id, line))


async def end_item(
    connection: Connection, import_id: UUID, line: int, result: ProductResult, detail: str | None
) -> None:
    await connection.execute(queries.end_item, import_id, line, result, None if detail is None else detail[:1000])


async def set_applied_lines(
    connection: Connection, import_id: UUID, first_line: int, last_line: int, now: datetime
) -> bool:
    """Record the progress of an import, up to the first product that another process works on.

    Returns whether all up to this line have their result."""
    open_line: int | None = await connection.fetchval(queries.find_open_line, import_id, first_line, last_line)
    await connection.execute(
        queries.set_applied_lines, import_id, last_line if open_line is None else open_line - 1, now
    )
    return open_line is None


async def end_apply(connection: Connection, import_id: UUID, now: datetime) -> None:
    await connection.execute(queries.end_apply, import_id, now)


async def list_owners(connection: Connection, skus: Collection[str]) -> dict[str, str]:
    """Return the products of those of the SKUs that there are."""
    return {row["sku"]: row["product_id"] for row in await connection.fetch(queries.list_owners, list(skus))}


async def list_barcodes(connection: Connection, barcodes: Collection[str]) -> dict[str, str]:
    """Return the SKUs of those of the barcodes of 14 digits that there are."""
    return {row["barcode"]: row["sku"] for row in await connection.fetch(queries.list_barcodes, list(barcodes))}


async def list_product_ids(connection: Connection, product_ids: Collection[str]) -> frozenset[str]:
    """Return those of the products that there are."""
    rows = await connection.fetch(queries.list_product_ids, list(product_ids))
    return frozenset(row["product_id"] for row in rows)


async def list_categories(connection: Connection, category_ids: Collection[str]) -> dict[str, tuple[str, str | None]]:
    """Return the status of categories, and the one into which each was merged."""
    rows = await connection.fetch(queries.list_categories, list(category_ids))
    return {row["category_id"]: (row["status"], row["merged_into"]) for row in rows}


async def put_variants(
    connection: Connection,
    product_id: str,
    variants: Mapping[str, PlannedVariant],
    changed_barcodes: Sequence[str],
    now: datetime,
) -> list[str]:
    """Insert or replace variants of a locked product, and return their SKUs.

    A SKU that another product got meanwhile is left out. `changed_barcodes` lists those that give up a barcode."""
    await connection.execute(queries.defer_unique)
    if changed_barcodes:
        await connection.execute(queries.clear_barcodes, changed_barcodes)
    values = list(variants.values())
    rows = await connection.fetch(
        queries.put_variants,
        product_id,
        list(variants),
        [variant.name for variant in values],
        [variant.price for variant in values],
        [variant.currency for variant in values],
        [_json(variant.option_values) for variant in values],
        [variant.barcode for variant in values],
        now,
    )
    return [row["sku"] for row in rows]


async def list_subtree(connection: Connection, category_id: str) -> list[str]:
    """List a category and those below it."""
    return [row["category_id"] for row in await connection.fetch(queries.list_subtree, category_id)]


async def list_exported(connection: Connection, category_id: str | None, after: str, count: int) -> list[str]:
    """List products after one, all or those of a category."""
    if category_id is None:
        rows = await connection.fetch(queries.list_exported, after, count)
    else:
        rows = await connection.fetch(queries.list_exported_of_category, after, count, category_id)
    return [row["product_id"] for row in rows]


async def list_column_names(connection: Connection, product_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Return attributes, options and languages of products as (kind, name)."""
    rows = await connection.fetch(queries.list_column_names, product_ids)
    return {(row["kind"], row["name"]) for row in rows}


async def delete_old(connection: Connection, before: datetime, count: int) -> int:
    """Delete up to about `count` rows of the oldest import from before a moment. Returns how many."""
    import_id = await connection.fetchval(queries.lock_old_import, before)
    if import_id is None:
        return 0
    deleted = len(await connection.fetch(queries.delete_lines, import_id, count))
    if deleted < count:
        deleted += len(await connection.fetch(queries.delete_items, import_id, count))
    if deleted < count:
        await connection.execute(queries.delete_import, import_id)
        deleted += 1
    return deleted
