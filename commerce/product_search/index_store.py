"""Writes of the index of products, in a transaction that has locked its state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from commerce.kernel.postgres import Connection
from commerce.product_search.documents import CATEGORY, AttributeNames, ProductDocument
from commerce.product_search.query_terms import quote
from commerce.product_search.store import queries
from commerce.text_search.spelling import list_rests


class IndexState(NamedTuple):
    """The last change of the index, and the change of categories up to which it has followed them."""

    change_no: int
    category_change_no: int


class CategoryStep(NamedTuple):
    """A change of a category or of an attribute; an import has neither."""

    change_no: int
    kind: str
    category_id: str | None
    attribute_id: str | None


class IndexedProduct(NamedTuple):
    """A product as the index has it now, with the terms that are counted."""

    is_listed: bool
    terms: frozenset[str]


async def lock_state(connection: Connection) -> IndexState:
    """Wait for other writers, and keep them out until the transaction ends."""
    row = await connection.fetchrow(queries.lock_state)
    assert row is not None
    return IndexState(*row)


async def take_changed(connection: Connection, count: int, considered: int) -> tuple[int, list[str]]:
    """Remove the oldest entries, and more of their products from among so many considered.

    Returns the number of removed entries, and their products in their sequence."""
    rows = await connection.fetch(queries.take_changed_products, count, considered)
    rows.sort(key=lambda row: row["entry_no"])
    return len(rows), list(dict.fromkeys(row["product_id"] for row in rows))


async def measure_queue(connection: Connection) -> tuple[int, datetime | None]:
    """Return the number of entries, and since when the oldest waits."""
    row = await connection.fetchrow(queries.measure_queue)
    assert row is not None
    return row[0], row[1]


async def has_changes(connection: Connection) -> bool:
    """Tell whether something waits to be indexed."""
    return bool(await connection.fetchval(queries.has_changes))


async def list_category_changes(connection: Connection, after: int, count: int) -> list[CategoryStep]:
    return [CategoryStep(*row) for row in await connection.fetch(queries.list_category_changes, after, count)]


async def set_category_change(connection: Connection, change_no: int) -> None:
    await connection.execute(queries.set_category_change, change_no)


async def note_products_of_categories(connection: Connection, category_ids: Collection[str]) -> None:
    await connection.execute(queries.note_products_of_categories, list(category_ids))


async def note_products_with_attributes(connection: Connection, attribute_ids: Collection[str]) -> None:
    query = " | ".join(quote(attribute_id) for attribute_id in attribute_ids)
    await connection.execute(queries.note_products_with_attributes, query)


async def note_products(connection: Connection, after: str, count: int) -> list[str]:
    """Note a part of all products, and return their ids, sorted."""
    return sorted(row[0] for row in await connection.fetch(queries.note_products, after, count))


async def read_attribute_names(connection: Connection, attribute_ids: Collection[str]) -> dict[str, AttributeNames]:
    rows = await connection.fetch(queries.read_attribute_names, list(attribute_ids))
    return {row["attribute_id"]: AttributeNames(row["kind"], row["names"]) for row in rows}


async def read_choice_names(connection: Connection, choice_ids: Collection[str]) -> dict[str, list[str]]:
    return dict(await connection.fetch(queries.read_choice_names, list(choice_ids)))  # type: ignore[arg-type]


async def read_indexed(connection: Connection, product_ids: Sequence[str]) -> dict[str, IndexedProduct]:
    rows = await connection.fetch(queries.read_indexed, product_ids)
    return {row["product_id"]: IndexedProduct(row["is_listed"], _counted(row["title"], row["filters"])) for row in rows}


def list_counted(document: ProductDocument) -> frozenset[str]:
    """Return the terms of a document that are counted: those of its title, and its categories."""
    return _counted(document.title, document.filters)


def _counted(title: Collection[str], filters: Collection[str]) -> frozenset[str]:
    return frozenset(title).union(lexeme for lexeme in filters if lexeme.startswith(f"{CATEGORY}="))


async def put_documents(
    connection: Connection, documents: Sequence[ProductDocument], state: IndexState, listed_delta: int
) -> None:
    """Write documents as the changes after the last one."""
    rows = msgspec.json.encode(
        [_to_row(document, state.change_no + place) for place, document in enumerate(documents, 1)]
    ).decode()
    await connection.execute(queries.update_products, rows)
    await connection.execute(queries.insert_products, rows)
    await connection.execute(queries.raise_state, len(documents), listed_delta)


async def change_terms(connection: Connection, deltas: Mapping[str, int], spellings: Mapping[str, str]) -> None:
    """Change the numbers of products of terms."""
    more = [_to_term(term, delta, spellings.get(term)) for term, delta in deltas.items() if delta > 0]
    fewer = sorted((term, -delta) for term, delta in deltas.items() if delta < 0)
    if more:
        await connection.execute(queries.raise_terms, msgspec.json.encode(more).decode())
    if fewer:
        terms, counts = zip(*fewer, strict=True)
        await connection.execute(queries.lower_terms, terms, counts)
        await connection.execute(queries.delete_unused_terms, terms)


def _to_term(term: str, products: int, spelling: str | None) -> dict[str, Any]:
    rests = None if spelling is None else sorted(list_rests(term))
    return {"term": term, "products": products, "spelling": spelling, "rests": rests}


def _to_row(document: ProductDocument, change_no: int) -> dict[str, Any]:
    title = " ".join(f"{quote(term)}:1{weight}" for term, weight in document.title.items())
    terms = " ".join(quote(term) for term in (*document.title, *document.body))
    return {
        "product_id": document.product_id,
        "change_no": change_no,
        "is_listed": document.is_listed,
        "names": document.names,
        "category_id": document.category_id,
        "brand": document.brand,
        "currency": document.currency,
        "prices": document.prices,
        "skus": document.skus,
        "numbers": document.numbers,
        "filters": " ".join(map(quote, document.filters)),
        "title": title,
        "document": terms,
    }
