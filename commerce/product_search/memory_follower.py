"""Keeps an index in memory as `product_search` in Postgres is."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec

from commerce.kernel.postgres import Connection, Database
from commerce.product_search.memory_index import MemoryProductIndex
from commerce.product_search.memory_products import IndexRow, MemoryProducts
from commerce.product_search.model import ProductHit
from commerce.product_search.store import queries

_ROWS_PER_READ = 2_000
_decode_names = msgspec.json.Decoder(dict[str, str]).decode
_decode_numbers = msgspec.json.Decoder(dict[str, list[float]]).decode


class MemoryIndexFollower:
    """Reads what has changed. `index` is None until all rows have been read once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._products = MemoryProducts()
        self._parents: dict[str, str | None] = {}
        self._tree_version = -1
        self.index: MemoryProductIndex | None = None

    async def step(self) -> int:
        """Read changed rows, up to the last change, and return their number.

        An index that is ahead of Postgres, as after the return of a backup, is built again.
        """
        async with self._db.connection() as connection:
            change_no, tree_version = await _read_version(connection)
            if change_no < self._products.change_no:
                self._products, self.index = MemoryProducts(), None
            if tree_version != self._tree_version:
                self._parents = {row[0]: row[1] for row in await connection.fetch(queries.list_category_parents)}
                self._tree_version = tree_version
                if self.index is not None:
                    self.index = MemoryProductIndex(self._products, self._parents)
        count = 0
        while self._products.change_no < change_no:
            async with self._db.connection() as connection:
                rows = await connection.fetch(queries.list_index_rows, self._products.change_no, _ROWS_PER_READ)
            if not rows:
                break
            self._products.put(await asyncio.to_thread(_read_rows, rows))
            count += len(rows)
        if self.index is None:
            self.index = MemoryProductIndex(self._products, self._parents)
        return count


async def _read_version(connection: Connection) -> tuple[int, int]:
    row = await connection.fetchrow(queries.read_index_version)
    assert row is not None
    return row["change_no"], row["tree_version"]


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
