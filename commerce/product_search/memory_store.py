"""Reads of an index in memory: rows as they are kept there, and the tree of categories."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import asyncpg
import msgspec

from commerce.kernel.postgres import Connection
from commerce.product_search.memory_products import IndexRow
from commerce.product_search.model import ProductHit
from commerce.product_search.store import queries

_decode_names = msgspec.json.Decoder(dict[str, str]).decode
_decode_numbers = msgspec.json.Decoder(dict[str, list[float]]).decode


class IndexVersion(NamedTuple):
    """The last change of the index, and the version of the categories."""

    change_no: int
    tree_version: int


async def read_version(connection: Connection) -> IndexVersion:
    """Read what tells whether something has changed."""
    row = await connection.fetchrow(queries.read_index_version)
    assert row is not None
    return IndexVersion(*row)


async def list_parents(connection: Connection) -> dict[str, str | None]:
    """Return the parent of each category, None of roots."""
    return {row[0]: row[1] for row in await connection.fetch(queries.list_category_parents)}


async def list_rows(connection: Connection, after: int, count: int) -> list[IndexRow]:
    """List rows after a change, in the sequence of their changes."""
    rows = await connection.fetch(queries.list_index_rows, after, count)
    return await asyncio.to_thread(_read_rows, rows)


def _read_rows(rows: list[asyncpg.Record]) -> list[IndexRow]:
    return [_read_row(row) for row in rows]


def _read_row(row: asyncpg.Record) -> IndexRow:
    terms = dict.fromkeys(row["terms"], 0)
    for code, name in ((1, "terms_c"), (2, "terms_b"), (3, "terms_a")):
        terms.update(dict.fromkeys(row[name], code))
    hit = None
    if row["is_listed"]:
        values = {name: row[name] for name in ProductHit._fields}
        hit = ProductHit(**{**values, "names": _decode_names(row["names"])})
    numbers = _decode_numbers(row["numbers"])
    return IndexRow(row["product_no"], row["change_no"], hit, row["prices"], numbers, row["filters"], terms)
