"""The sums of the ledger, kept up to date without reading it again.

The ledger is append-only, so a sum over its first entries stays as it is, once no transaction is left that could add
one among them: ids are taken before the commit, and not committed in their order. Whoever inserts holds a lock of the
table from before the first id until after the commit. So an entry that is not seen yet, with an id up to the newest one
that is seen, belongs to a transaction that holds this lock; when all that held it have ended, the entries up to that id
are complete.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from commerce.kernel.postgres import Connection, Database
from commerce.payments import store

_ENTRIES_PER_STATEMENT = 100_000
_NO_LIMIT = 2**63 - 1


@dataclass(slots=True)
class _Boundary:
    """An entry, and those of the transactions which may add one before it that have not ended yet."""

    line_id: int
    writers: set[str]


class LedgerSums:
    """Sums of all entries by currency. Remembers those that are complete, and reads only what came since.

    The first call reads the whole ledger, in statements of 100,000 entries.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._complete_to: int | None = None
        self._sums: Counter[str] = Counter()
        self._next: _Boundary | None = None

    async def read(self) -> dict[str, int] | None:
        """Sum all committed entries by currency. Any sum but 0 means that money was created or lost.

        None until a first part of the ledger is complete, which may take as long as a transaction that writes to it.
        """
        async with self._db.connection() as connection:
            newest = await store.read_newest_entry(connection)
            if newest < (self._complete_to or 0):  # another database, restored from a backup
                self._complete_to, self._next = None, None
            await self._extend(connection, newest)
            if self._complete_to is None:
                return None
            sums = Counter(self._sums)
            sums.update(await store.sum_entries(connection, self._complete_to, _NO_LIMIT))
            return dict(sums)

    async def _extend(self, connection: Connection, newest: int) -> None:
        writers = await store.list_ledger_writers(connection)  # after `newest`: see above
        if self._next is None:
            self._next = _Boundary(newest, writers)
        self._next.writers &= writers
        if self._next.writers:
            return
        if self._complete_to is None:
            self._complete_to, self._sums = 0, Counter()
        while self._complete_to < self._next.line_id:
            end = min(self._complete_to + _ENTRIES_PER_STATEMENT, self._next.line_id)
            self._sums.update(await store.sum_entries(connection, self._complete_to, end))
            self._complete_to = end
        self._next = None
