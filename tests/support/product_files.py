"""Imports of products from texts, for tests."""

from __future__ import annotations

from io import BytesIO

from commerce.product_imports.export import ProductExport
from commerce.product_imports.model import ImportFormat, ProductImport, ReportLine
from commerce.product_imports.service import ProductImports
from ops.services import CliServices
from tests.support.product_shop import ACTOR


def imports_of(shop: CliServices) -> ProductImports:
    return shop.product_imports


async def check(shop: CliServices, content: str | bytes, file_format: ImportFormat = "csv") -> ProductImport:
    """Store a file and check it to its end. The counts are those of all its lines."""
    raw = content.encode() if isinstance(content, str) else content
    imports = imports_of(shop)
    added = await imports.add(BytesIO(raw), f"test.{file_format}", file_format, ACTOR)
    current = await imports.finish(added.import_id)
    outcomes = current.created + current.changed + current.unchanged + current.refused
    around = current.header_lines + current.blank_lines + current.continued_lines + current.unread_lines
    assert outcomes + around == current.lines, current
    return current


async def apply(shop: CliServices, current: ProductImport, anyway: str | None = "it is a test") -> ProductImport:
    await imports_of(shop).apply(current.import_id, ACTOR, anyway)
    return await imports_of(shop).finish(current.import_id)


async def report(shop: CliServices, current: ProductImport) -> list[ReportLine]:
    return (await imports_of(shop).list_lines(current.import_id, 0, 1_000)).items


async def faults(shop: CliServices, current: ProductImport) -> list[tuple[int, str, str]]:
    """Return (line, column, reason) of each fault."""
    lines = await report(shop, current)
    return [(line.line, fault.column, fault.reason) for line in lines for fault in line.faults]


async def changes(shop: CliServices, current: ProductImport) -> list[tuple[int, str, list[str]]]:
    """Return (line, outcome, columns) of each record that changes something."""
    lines = await report(shop, current)
    return [(line.line, line.outcome, line.columns) for line in lines if line.outcome in ("created", "changed")]


async def export(shop: CliServices, file_format: ImportFormat = "csv", category_id: str | None = None) -> bytes:
    return b"".join([piece async for piece in ProductExport(shop.db).export(file_format, category_id)])
