"""Imports of products, their reports, and products as files have them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.model import (
    MAX_ATTRIBUTE_VALUES,
    MAX_OPTIONS,
    MAX_VARIANTS,
    AttributeValue,
    Options,
    ProductStatus,
)
from commerce.categories.model import AttributeId
from commerce.kernel.languages import MAX_LANGUAGES, LanguageTag
from commerce.kernel.types import Reason

QUEUE, CHECK, APPLY = "product_imports", "product_import.check", "product_import.apply"
MAX_LINE_CHARS = 1_000_000
ImportFormat = Literal["csv", "jsonl"]
ImportStatus = Literal["checking", "checked", "applying", "applied", "refused"]
"""`refused`: the file as a whole cannot be read; `reason` says why"""
LineOutcome = Literal["created", "changed", "unchanged", "refused"]
ProductResult = Literal["applied", "changed_meanwhile", "refused", "failed"]
"""`changed_meanwhile`: somebody changed the product after the report"""
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class ProductImport(msgspec.Struct, frozen=True, kw_only=True):
    """An import of a file, with its counts.

    `created`, `changed`, `unchanged` and `refused` count records; with `header_lines`, `blank_lines`,
    `continued_lines` (within quoted values) and `unread_lines` they are all `lines` of the file. `products` counts
    those that were to be created or changed, the next three what became of them. `anyway` is the reason why they go on
    sale whatever their quality."""

    import_id: UUID
    file_name: str
    format: ImportFormat
    status: ImportStatus
    reason: str | None
    lines: int
    checked_lines: int
    header_lines: int
    blank_lines: int
    continued_lines: int
    unread_lines: int
    created: int
    changed: int
    unchanged: int
    refused: int
    products: int
    applied_products: int
    changed_meanwhile: int
    failed_products: int
    applied_lines: int
    created_at: datetime
    created_by: str
    changed_at: datetime
    applied_by: str | None
    anyway: str | None


class ApplyInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of applying an import.

    With `anyway`, which is a reason, products go on sale whatever their quality, and their changes keep it."""

    anyway: Reason | None = None


class LineFault(msgspec.Struct, frozen=True):
    """Why a line is refused, and in which column; an empty column is the whole line."""

    column: str
    reason: str


class ReportLine(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the file: what becomes of it.

    `columns` names what changes, or `faults` what is wrong. `result` is what became of its product when the import
    was applied."""

    line: int
    outcome: LineOutcome
    product_id: str | None
    sku: str | None
    columns: list[str]
    faults: list[LineFault]
    result: ProductResult | None
    detail: str | None


_OptionValues = Annotated[dict[AttributeId, AttributeValue], msgspec.Meta(max_length=MAX_OPTIONS)]


class Cell(str):
    """A text of a CSV file whose type only the attribute knows."""

    __slots__ = ()


class Fault(NamedTuple):
    """A fault of a line, in a column."""

    line: int
    column: str
    reason: str


class ImportedVariant(NamedTuple):
    """A variant as a file has it. What `values` lacks stays.

    `values` has name, price, currency, barcode and option_values. A price that is a text is decimal."""

    line: int
    sku: str
    values: dict[str, Any]


class ImportedProduct(NamedTuple):
    """A product as a file has it, with its variants. What `values` lacks stays.

    `values` has status, category_id, brand and options; `texts` by language name, description and search_words, or None
    to remove the language; `attributes` has None for one to remove."""

    line: int
    product_id: str
    values: dict[str, Any]
    texts: dict[str, dict[str, Any] | None]
    attributes: dict[str, Any]
    variants: list[ImportedVariant]


class ProductLines(NamedTuple):
    """The lines of one product. `records` are first lines of records, `blank` counts blank lines."""

    records: list[int]
    last_line: int
    blank: int
    product: ImportedProduct | None
    faults: list[Fault]


class TextLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name, description and search words in one language, as a line of JSON has them."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    search_words: list[str] | UnsetType = UNSET


class VariantLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A variant as a line of JSON has it; the price is in minor units."""

    sku: str
    name: str | UnsetType = UNSET
    price: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    barcode: str | UnsetType | None = UNSET
    option_values: Annotated[dict[AttributeId, AttributeValue], msgspec.Meta(max_length=MAX_OPTIONS)] | UnsetType = (
        UNSET
    )


class ProductLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of JSON: a product with its variants. What is left out stays; null removes."""

    product_id: str
    status: ProductStatus | UnsetType = UNSET
    category_id: str | UnsetType | None = UNSET
    brand: str | UnsetType | None = UNSET
    texts: Annotated[dict[LanguageTag, TextLine | None], msgspec.Meta(max_length=MAX_LANGUAGES)] = {}
    attributes: Annotated[dict[AttributeId, AttributeValue | None], msgspec.Meta(max_length=MAX_ATTRIBUTE_VALUES)] = {}
    options: Options | UnsetType = UNSET
    variants: Annotated[list[VariantLine], msgspec.Meta(max_length=MAX_VARIANTS)] = []
