"""Exports of products: an exported file changes nothing if it is imported again."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from commerce.catalog import product_store
from commerce.catalog.model import Product, Variant
from commerce.kernel.errors import Conflict, NotFound
from commerce.kernel.money import minor_digits
from commerce.kernel.postgres import Database
from commerce.product_imports import store
from commerce.product_imports.attribute_cells import write_cell
from commerce.product_imports.model import ImportFormat
from commerce.product_imports.product_csv import PRODUCT_COLUMNS, SEPARATOR, TEXT_COLUMNS, VARIANT_COLUMNS

_PAGE_SIZE = 200
MAX_COLUMNS = 1_000


class ProductExport:
    """Reads products page by page: each product is as it was at one time, all of them are not."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def export(self, file_format: ImportFormat, category_id: str | None = None) -> AsyncIterator[bytes]:
        """Yield a file in pieces: all products, or those of a category and the categories below it.

        Raises before the first piece `NotFound` if there is no such category, and `Conflict` if a CSV file would have
        too many columns."""
        categories: list[str | None] = [None]
        if category_id is not None:
            async with self._db.connection() as connection:
                categories = list(await store.list_subtree(connection, category_id))
            if not categories:
                raise NotFound(f"there is no category {category_id!r}")
        if file_format == "jsonl":
            async for products in self._read(categories):
                yield b"".join(_write_line(product) for product in products)
            return
        columns = await self._find_columns(categories)
        yield _write_rows([columns])
        async for products in self._read(categories):
            yield _write_rows([[row.get(name, "") for name in columns] for item in products for row in to_rows(item)])

    async def _list(self, categories: Sequence[str | None]) -> AsyncIterator[list[str]]:
        for category_id in categories:
            after = ""
            while True:
                async with self._db.connection() as connection:
                    ids = await store.list_exported(connection, category_id, after, _PAGE_SIZE)
                if not ids:
                    break
                yield ids
                after = ids[-1]

    async def _read(self, categories: Sequence[str | None]) -> AsyncIterator[list[Product]]:
        async for ids in self._list(categories):
            async with self._db.snapshot() as connection:
                current = await product_store.read(connection, ids)
            yield [current[product_id].product for product_id in ids if product_id in current]

    async def _find_columns(self, categories: Sequence[str | None]) -> list[str]:
        names: set[tuple[str, str]] = set()
        async for ids in self._list(categories):
            async with self._db.snapshot() as connection:
                names |= await store.list_column_names(connection, ids)
        by_kind = {
            kind: sorted(name for group, name in names if group == kind) for kind in ("language", "attribute", "option")
        }
        columns = [
            *("product_id", *PRODUCT_COLUMNS),
            *(f"{kind}:{language}" for language in by_kind["language"] for kind in TEXT_COLUMNS),
            *(f"attribute:{name}" for name in by_kind["attribute"]),
            *("sku", *VARIANT_COLUMNS),
            *(f"option:{name}" for name in by_kind["option"]),
        ]
        if len(columns) > MAX_COLUMNS:
            raise Conflict(
                f"the products have {len(by_kind['attribute'])} attributes, too many for columns of one file; export "
                "them category by category, or as JSON Lines"
            )
        return columns


def _write_line(product: Product) -> bytes:
    """Write a product as a line of JSON."""
    values = {
        "product_id": product.product_id,
        "status": product.status,
        "category_id": product.category_id,
        "brand": product.brand,
        "texts": product.texts,
        "attributes": product.attributes,
        "options": product.options,
        "variants": [
            {
                "sku": variant.sku,
                "name": variant.name,
                "price": variant.price,
                "currency": variant.currency,
                "barcode": variant.barcode,
                "option_values": variant.option_values,
            }
            for variant in product.variants
        ],
    }
    return msgspec.json.encode(values) + b"\n"


def _write_rows(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def to_rows(product: Product) -> Iterator[dict[str, str]]:
    """Yield the rows of a product, one per variant; the first has its own values, too."""
    first = {
        "status": product.status,
        "category_id": product.category_id or "",
        "brand": product.brand or "",
        "options": SEPARATOR.join(product.options),
        **{f"attribute:{name}": write_cell(value) for name, value in product.attributes.items()},
    }
    for language, text in product.texts.items():
        first[f"name:{language}"] = text.name
        first[f"description:{language}"] = text.description or ""
        first[f"search_words:{language}"] = "\n".join(text.search_words)
    own: list[dict[str, str]] = [_to_row(variant) for variant in product.variants] or [{}]
    for place, row in enumerate(own):
        yield {"product_id": product.product_id, **(first if place == 0 else {}), **row}


def _to_row(variant: Variant) -> dict[str, Any]:
    digits = minor_digits(variant.currency)
    whole, rest = divmod(variant.price, 10**digits)
    return {
        "sku": variant.sku,
        "variant_name": variant.name,
        "price": f"{whole}.{rest:0{digits}d}" if digits else str(whole),
        "currency": variant.currency,
        "barcode": variant.barcode or "",
        **{f"option:{name}": write_cell(value) for name, value in variant.option_values.items()},
    }
