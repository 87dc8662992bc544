"""Transactions that concurrent callers share, in which one item never costs the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from asyncpg import LockNotAvailableError, TransactionRollbackError

from commerce.kernel.batches import Batcher
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY, Connection, Database, limit_lock_waits

_logger = logging.getLogger(__name__)
_MAX_ITEMS = 100
"""items of a transaction: it locks their orders until it ends"""
_MAX_LOCK_WAIT_S = 0.5
"""wait of all for the lock of a row that one of them needs"""
Item = TypeVar("Item")
Result = TypeVar("Result")
Record = Callable[[Connection, Sequence[Item], bool], Awaitable[Sequence[Result | Exception | None]]]
"""records items in a transaction, and returns for each a result, or an error to raise

The last argument tells if it may wait for locked rows. If not, None stands for an item that has to wait."""


class SharedTransactions(Generic[Item, Result]):
    """Records the items of concurrent callers in one transaction.

    Those share it that arrive together, and those that arrive while another runs. An item that has to wait for another
    transaction is then recorded alone, as are all if theirs fails or waits too long for a lock. Only if Postgres is
    unavailable, the error is that of all of them."""

    def __init__(self, db: Database, record: Record[Item, Result]) -> None:
        self._db = db
        self._record = record
        self._batches: Batcher[Item, Result | Exception | None] = Batcher(self._record_together, _MAX_ITEMS)

    async def add(self, item: Item) -> Result:
        """Record an item. Returns its result, or raises its error."""
        result = await self._batches.add(item)
        if result is None:
            async with self._db.transaction() as connection:
                [result] = await self._record(connection, [item], True)
        if isinstance(result, Exception):
            raise result
        assert result is not None
        return result

    async def _record_together(self, items: Sequence[Item]) -> Sequence[Result | Exception | None]:
        try:
            async with self._db.transaction() as connection:
                await limit_lock_waits(connection, _MAX_LOCK_WAIT_S)
                return await self._record(connection, items, False)
        except (LockNotAvailableError, TransactionRollbackError):  # the latter of a deadlock
            return [None] * len(items)
        except POSTGRES_UNAVAILABLE_OR_BUSY:
            raise
        except Exception as error:  # noqa: BLE001  # whichever item causes it gets it again when it is alone
            if len(items) > 1:  # it may also be the set that causes it, and then no item would say so
                log_failure(_logger, "a shared transaction failed", error, items=len(items))
            return [None] * len(items)
