"""Reads of the index of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg
import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.product_search.model import ProductHit, SearchPosition, SearchSort

queries = load_queries(
    __package__,
    hits=(
        *("product_no", "product_id", "skus", "names", "category_id", "brand"),
        *("min_minor", "max_minor", "currency"),
    ),
)
INDEX_NAME = "postgres"
_decode_names = msgspec.json.Decoder(dict[str, str]).decode
_BY_SORT: dict[SearchSort, str] = {
    "price_up": queries.find_cheapest,
    "price_down": queries.find_dearest,
    "newest": queries.find_newest,
}


class Conditions(NamedTuple):
    """Conditions that products must fit, as the statements take them; None is no condition."""

    text: str | None
    filters: str | None
    min_minor: int | None
    max_minor: int | None
    numbers: str | None
    bits: bytes | None


class WeighedQuery(NamedTuple):
    """The queries of the words of a text, with their weights."""

    weights: list[float]
    queries: list[str]


class FacetRow(NamedTuple):
    """The count of a value of a field, or the smallest and the largest number of a field."""

    field: str
    value: str
    products: int
    low: float | None
    high: float | None


class NearTerm(NamedTuple):
    """A term that a mistyped word may stand for."""

    term: str
    spelling: str
    products: int


async def begin_search(connection: Connection, timeout_ms: int) -> None:
    """Bound the statements of this transaction, and have them planned with their values."""
    await connection.execute(queries.begin_search, str(timeout_ms))


async def find_by_score(
    connection: Connection,
    conditions: Conditions,
    words: WeighedQuery,
    max_ranked: int,
    after: SearchPosition | None,
    count: int,
) -> list[tuple[ProductHit, SearchPosition]]:
    """Find the products that fit best."""
    key, product_no = (None, None) if after is None else (after.key, after.product_no)
    rows = await connection.fetch(
        queries.find_by_score, *conditions, max_ranked, words.weights, words.queries, key, product_no, count
    )
    return [_read_hit(row) for row in rows]


async def find_sorted(
    connection: Connection, conditions: Conditions, sort: SearchSort, after: SearchPosition | None, count: int
) -> list[tuple[ProductHit, SearchPosition]]:
    """Find products by price or number."""
    key, product_no = (None, None) if after is None else (int(after.key), after.product_no)
    rows = await connection.fetch(_BY_SORT[sort], *conditions, key, product_no, count)
    return [_read_hit(row) for row in rows]


def _read_hit(row: asyncpg.Record) -> tuple[ProductHit, SearchPosition]:
    values = {name: row[name] for name in ProductHit._fields}
    hit = ProductHit(**{**values, "names": _decode_names(row["names"])})
    return hit, SearchPosition(INDEX_NAME, row["key"], hit.product_no)


async def count_found(connection: Connection, conditions: Conditions, max_counted: int) -> int:
    return int(await connection.fetchval(queries.count_found, *conditions, max_counted))


async def count_facets(
    connection: Connection,
    conditions: Conditions,
    max_counted: int,
    fields: Sequence[str] | None,
    parent_id: str | None,
    available: bytes | None,
    max_fields: int,
    max_values: int,
) -> list[FacetRow]:
    """Count values of fields, of these or of those that most products have."""
    rows = await connection.fetch(
        *(queries.count_facets, *conditions, max_counted, fields, parent_id, available, max_fields, max_values)
    )
    return [FacetRow(*row) for row in rows]


async def find_facet_parent(connection: Connection, category_id: str) -> str | None:
    """Return the category whose children are to be counted beside a chosen one."""
    parent_id: str | None = await connection.fetchval(queries.find_facet_parent, category_id)
    return parent_id


async def choose_query(connection: Connection, candidates: Sequence[str]) -> str | None:
    """Return the first query that finds a product."""
    place = await connection.fetchval(queries.choose_query, candidates)
    return None if place is None else candidates[place - 1]


async def list_known(connection: Connection, candidates: Sequence[str]) -> set[int]:
    """Return the places of the queries that find a product, from 0."""
    return {row[0] - 1 for row in await connection.fetch(queries.list_known, candidates)}


async def count_products(connection: Connection, terms: Sequence[str]) -> tuple[int, Mapping[str, int]]:
    """Return the number of listed products, and by term of those whose title has it."""
    listed = int(await connection.fetchval(queries.count_listed))
    return listed, dict(await connection.fetch(queries.count_products_of_terms, terms))  # type: ignore[arg-type]


async def list_near(connection: Connection, rests: Sequence[str], count: int) -> list[NearTerm]:
    """List terms that have one of the rests, the most frequent first."""
    return [NearTerm(*row) for row in await connection.fetch(queries.list_near, rests, count)]


async def suggest_products(connection: Connection, query: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """Return some products by a query of their titles, with their names."""
    rows = await connection.fetch(queries.suggest_products, query, count)
    return [(row["product_id"], _decode_names(row["names"])) for row in rows]


async def suggest_categories(connection: Connection, pattern: str, count: int) -> list[tuple[str, str, str]]:
    """Return categories as (id, language, name) that have products and a name like the pattern."""
    return [tuple(row) for row in await connection.fetch(queries.suggest_categories, pattern, count)]


class IndexChange(NamedTuple):
    """A changed row of the index."""

    product_no: int
    change_no: int
    is_listed: bool
    skus: list[str]


async def list_changed(connection: Connection, after: int, count: int) -> list[IndexChange]:
    """List rows after a change, in the sequence of their changes."""
    return [IndexChange(*row) for row in await connection.fetch(queries.list_changed, after, count)]


async def list_numbers(connection: Connection, skus: Sequence[str]) -> dict[str, int]:
    """Return the numbers of listed products by SKU."""
    return dict(await connection.fetch(queries.list_numbers, skus))  # type: ignore[arg-type]


async def read_change(connection: Connection) -> int:
    """Return the number of the last change of the index."""
    return int(await connection.fetchval(queries.read_change))


class FacetNames(NamedTuple):
    """Names by language of categories, attributes and choices, and the units of attributes."""

    categories: dict[str, dict[str, str]]
    attributes: dict[str, dict[str, str]]
    choices: dict[str, dict[str, str]]
    units: dict[str, str]


async def read_names(
    connection: Connection, category_ids: Sequence[str], attribute_ids: Sequence[str], choice_ids: Sequence[str]
) -> FacetNames:
    """Read the names of what facets show."""
    result = FacetNames({}, {}, {}, {})
    for kind, key, names, unit in await connection.fetch(queries.read_names, category_ids, attribute_ids, choice_ids):
        if unit is not None:
            result.units[key] = unit
        {"category": result.categories, "attribute": result.attributes, "choice": result.choices}[kind][key] = (
            _decode_names(names)
        )
    return result
