"""Loads generated products into the database of a shop, by COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import msgspec
from asyncpg import ForeignKeyViolationError, UniqueViolationError

from commerce.kernel.errors import Conflict
from commerce.kernel.postgres import Connection, Database
from loadtest.generated_products import CURRENCY, GeneratedProduct

_PRODUCTS_PER_COPY = 2_000
_ACTOR, _REASON = "load test", "generated for load tests"
_OLDEST = timedelta(days=730)
_COLUMNS = {
    "products": (
        *("product_id", "status", "category_id", "brand", "attributes", "options"),
        *("version", "created_at", "updated_at"),
    ),
    "product_texts": ("product_id", "language", "name", "description", "search_words"),
    "variants": (
        *("sku", "product_id", "name", "price_minor", "currency", "option_values"),
        *("created_at", "updated_at"),
    ),
    "product_changes": ("product_id", "version", "action", "actor", "reason", "diff", "at"),
    "price_changes": ("sku", "price_minor", "currency", "actor", "reason", "at"),
}
_TAKE_TIME = "SET LOCAL statement_timeout = 0"
_ANALYZE_TIMEOUT_S = 600
_KEYS = ("products_pkey", "variants_pkey")
_ANALYZE = f"ANALYZE {', '.join(_COLUMNS)}"


class LoadedProducts(NamedTuple):
    """Numbers of rows that were loaded."""

    products: int
    variants: int


async def load_products(
    db: Database, products: Iterable[GeneratedProduct], now: datetime, note_progress: Callable[[int], None]
) -> LoadedProducts:
    """Load products on sale with their variants and the beginning of their histories, all or none.

    They were created in the two years before `now`. The categories must exist. Raises `Conflict` if one is missing or a
    product is there already.
    """
    chooser = Random(_REASON)  # noqa: S311  # not cryptographic
    counts = LoadedProducts(0, 0)
    async with db.transaction() as connection:
        await connection.execute(_TAKE_TIME)
        for batch in _batches(products):
            try:
                await _copy(connection, batch, chooser, now)
            except ForeignKeyViolationError:
                raise Conflict(
                    "cannot load products: their categories are not in the shop; import the taxonomy first, with "
                    "`floodgate catalog taxonomy import`"
                ) from None
            except UniqueViolationError as error:
                if error.constraint_name not in _KEYS:
                    raise
                raise Conflict(
                    f"cannot load products: one of {batch[0].product_id} to {batch[-1].product_id} is there already; "
                    "use another --seed"
                ) from None
            counts = LoadedProducts(
                counts.products + len(batch), counts.variants + sum(len(product.variants) for product in batch)
            )
            note_progress(counts.products)
        await connection.execute(_ANALYZE, timeout=_ANALYZE_TIMEOUT_S)
    return counts


def _batches(products: Iterable[GeneratedProduct]) -> Iterator[list[GeneratedProduct]]:
    iterator = iter(products)
    while batch := list(islice(iterator, _PRODUCTS_PER_COPY)):
        yield batch


async def _copy(connection: Connection, products: Sequence[GeneratedProduct], chooser: Random, now: datetime) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
    for product in products:
        key = product.product_id
        at = now - _OLDEST * chooser.random()
        content = product.category_id, product.brand, _json(product.attributes), product.options
        rows["products"].append((key, "on_sale", *content, 2, at, at))
        for language, text in product.texts.items():
            rows["product_texts"].append((key, language, text.name, text.description, text.search_words))
        for version, action in ((1, "created"), (2, "published")):
            rows["product_changes"].append((key, version, action, _ACTOR, _REASON, "{}", at))
        for variant in product.variants:
            price = variant.price, CURRENCY
            rows["variants"].append((variant.sku, key, variant.name, *price, _json(variant.option_values), at, at))
            rows["price_changes"].append((variant.sku, *price, _ACTOR, _REASON, at))
    for table, columns in _COLUMNS.items():
        await connection.copy_records_to_table(table, records=rows[table], columns=columns)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
