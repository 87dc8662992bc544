"""Keeps an index in memory as `product_search` in Postgres is."""

from __future__ import annotations

import asyncio

from commerce.kernel.postgres import Database
from commerce.product_search import memory_store
from commerce.product_search.memory_index import MemoryProductIndex
from commerce.product_search.memory_products import MemoryProducts
from commerce.product_search.query_terms import split_query

_ROWS_PER_READ = 2_000
_WARM_UP = "手机 phone"


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
            change_no, tree_version = await memory_store.read_version(connection)
            if change_no < self._products.change_no:
                self._products, self.index = MemoryProducts(), None
            if tree_version != self._tree_version:
                self._parents = await memory_store.list_parents(connection)
                self._tree_version = tree_version
                if self.index is not None:
                    self.index = MemoryProductIndex(self._products, self._parents)
        count = 0
        while self._products.change_no < change_no:
            async with self._db.connection() as connection:
                rows = await memory_store.list_rows(connection, self._products.change_no, _ROWS_PER_READ)
            if not rows:
                break
            self._products.put(rows)
            count += len(rows)
        if self.index is None:
            await asyncio.to_thread(split_query, _WARM_UP)  # loads the dictionaries, which no search shall wait for
            self.index = MemoryProductIndex(self._products, self._parents)
        return count
