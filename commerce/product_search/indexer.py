"""Keeps the index of products as the catalog is, with its categories and attributes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from commerce.catalog import product_store
from commerce.catalog.model import Product
from commerce.categories import store as category_store
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.product_search import index_store
from commerce.product_search.documents import (
    ProductDocument,
    Vocabulary,
    add_spellings,
    build_document,
    build_unlisted,
)
from commerce.product_search.index_store import CategoryStep, IndexState
from commerce.text_search.terms import split

_ENTRIES_PER_STEP, _CONSIDERED_PER_STEP = 200, 10_000
_CATEGORY_CHANGES_PER_STEP, _PRODUCTS_PER_NOTE = 1_000, 10_000


class ProductIndexer:
    """Writes the index. Any number may run: the lock of its state lets one write at a time."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def step(self) -> int:
        """Index the products of the oldest entries, and return the number of entries.

        A step that is repeated changes nothing. Raises `NotReady` if a library is missing.
        """
        async with self._db.connection() as connection:
            if not await index_store.has_changes(connection):
                return 0
        # The libraries load their dictionaries at the first use, which must not keep a transaction idle.
        await asyncio.to_thread(split, "words 词语")
        async with self._db.transaction() as connection:
            state = await index_store.lock_state(connection)
            followed = await self._follow_categories(connection, state)
            entries, product_ids = await index_store.take_changed(connection, _ENTRIES_PER_STEP, _CONSIDERED_PER_STEP)
            if product_ids:
                await self._index(connection, product_ids, state)
        return entries + followed

    async def reindex(self, progress: Callable[[int], None] = lambda entries: None) -> int:
        """Note all products, and index until nothing waits.

        `progress` gets the number of entries of each step. Searches use the old rows meanwhile.
        Returns the number of products that were noted.
        """
        noted, after = 0, ""
        while True:
            async with self._db.transaction() as connection:
                await index_store.lock_state(connection)  # a step takes entries, too
                part = await index_store.note_products(connection, after, _PRODUCTS_PER_NOTE)
            if not part:
                break
            noted, after = noted + len(part), part[-1]
        while entries := await self.step():
            progress(entries)
        return noted

    async def measure_lag(self) -> timedelta:
        """Return how long the oldest change has waited to be indexed."""
        async with self._db.connection() as connection:
            _, noted_at = await index_store.measure_queue(connection)
        return timedelta() if noted_at is None else max(timedelta(), from_ms(self._clock.now_ms()) - noted_at)

    async def _follow_categories(self, connection: Connection, state: IndexState) -> int:
        """Note the products whose categories or attributes have changed."""
        changes = await index_store.list_category_changes(
            connection, state.category_change_no, _CATEGORY_CHANGES_PER_STEP
        )
        if not changes:
            return 0
        await _note_affected(connection, changes)
        await index_store.set_category_change(connection, changes[-1].change_no)
        return len(changes)

    async def _index(self, connection: Connection, product_ids: Sequence[str], state: IndexState) -> None:
        """Write the products as they are now, and count their terms."""
        products = {
            key: versioned.product for key, versioned in (await product_store.read(connection, product_ids)).items()
        }
        vocabulary = await _read_vocabulary(connection, products)
        # Words are cut in a thread: the other workers of this process go on meanwhile.
        documents = await asyncio.to_thread(_build_documents, product_ids, products, vocabulary)
        before = await index_store.read_indexed(connection, product_ids)
        deltas: Counter[str] = Counter()
        spellings: dict[str, str] = {}
        listed_delta = 0
        for document in documents:
            old = before.get(document.product_id)
            deltas.update(index_store.list_counted(document))
            deltas.subtract(old.terms if old is not None else ())
            add_spellings(spellings, document.spellings.items())
            listed_delta += document.is_listed - (old is not None and old.is_listed)
        await index_store.put_documents(connection, documents, state, listed_delta)
        await index_store.change_terms(connection, deltas, spellings)


def _build_documents(
    product_ids: Sequence[str], products: Mapping[str, Product], vocabulary: Vocabulary
) -> list[ProductDocument]:
    return [
        build_document(products[product_id], vocabulary) if product_id in products else build_unlisted(product_id)
        for product_id in product_ids
    ]


async def _note_affected(connection: Connection, changes: Sequence[CategoryStep]) -> None:
    if any(change.category_id is None and change.attribute_id is None for change in changes):
        after = ""
        while part := await index_store.note_products(connection, after, _PRODUCTS_PER_NOTE):
            after = part[-1]
        return
    if categories := {change.category_id for change in changes if change.category_id is not None}:
        await index_store.note_products_of_categories(connection, categories)
    if attributes := {change.attribute_id for change in changes if change.attribute_id is not None}:
        await index_store.note_products_with_attributes(connection, attributes)


async def _read_vocabulary(connection: Connection, products: Mapping[str, Product]) -> Vocabulary:
    """Read the names of everything that products refer to."""
    category_ids = {product.category_id for product in products.values() if product.category_id is not None}
    paths = {key: row.path for key, row in (await category_store.list_categories(connection, category_ids)).items()}
    names = await category_store.list_category_names(connection, {part for path in paths.values() for part in path})
    values: list[Mapping[str, Any]] = [product.attributes for product in products.values()]
    values += [variant.option_values for product in products.values() for variant in product.variants]
    attribute_ids = {attribute_id for by_attribute in values for attribute_id in by_attribute}
    choice_ids = {
        part
        for by_attribute in values
        for value in by_attribute.values()
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, str)
    }
    return Vocabulary(
        paths,
        {key: list(by_language.values()) for key, by_language in names.items()},
        await index_store.read_attribute_names(connection, attribute_ids),
        await index_store.read_choice_names(connection, choice_ids),
    )
