"""Adopts sales on a server that took the place of the one they were loaded on.

A promoted replica, and a server that restarted, may lack orders and changes that others have seen: selling on from such
a copy would sell units twice. The scripts therefore move nothing on a process whose run id is not the one in the sale's
meta. A sale is adopted in these steps:

1. Each gateway notes in Postgres the newest entry that it has seen of the sale, as soon as it meets the new server.
   After a moment for the others to do so, any process goes on.
2. Lock the sale's row: commits of writers and marks of changes, which share that lock, are finished or wait.
3. Compare the server with the newest entry and the newest change that Postgres knows. A server that is behind stays
   not ready: staff bring the previous one back, or rebuild the sale without what is lost.
4. Raise the epoch and commit it. Writers that hold entries of the previous server cannot store them unchecked any more.
5. Let the server take orders under the new epoch. If this step is not reached, the sale is loaded again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Database, safe_error_text
from commerce.sales import store
from commerce.sales.errors import LoadInProgress
from commerce.sales.loading import load_lock, terms_of
from lua import AdoptOutcome, EntryId, SaleKeys

_logger = logging.getLogger(__name__)
_REPORT_WAIT_S = 0.5


class ServerAdoption:
    """Adopts the sales of a process.

    `behind` maps each sale whose server is behind to the reason; `waiting` are sales that are not adopted yet.
    """

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self.behind: dict[str, str] = {}
        self.waiting: set[str] = set()

    @property
    def problem(self) -> str | None:
        """The reason why a sale takes no orders here, None if there is none."""
        if self.behind:
            return next(iter(self.behind.values()))
        return "this Redis is new: it is compared with the previous one first" if self.waiting else None

    async def adopt_sales(self, sale_ids: Sequence[str], newest_entries: Mapping[str, EntryId]) -> int:
        """Adopt those of the sales that were loaded on another server. Returns how many still wait.

        `newest_entries` are those that this process has seen, by sale. A sale that cannot be adopted now is logged
        and does not keep the others waiting. Raises redis's errors.
        """
        keys = [SaleKeys(sale_id) for sale_id in sale_ids]
        loads = await lua.read_load_states(self._redis, keys)
        foreign = [sale_id for sale_id, load in zip(sale_ids, loads, strict=True) if load.epoch and not load.is_adopted]
        self.waiting = set(foreign)
        for sale_id in self.behind.keys() - self.waiting:
            del self.behind[sale_id]
        if not foreign:
            return 0
        for sale_id in foreign:
            if entry := newest_entries.get(sale_id):
                await self._attempt(sale_id, self._report(sale_id, entry))
        await self._clock.sleep(_REPORT_WAIT_S)
        for sale_id in foreign:
            if await self._attempt(sale_id, self._adopt(sale_id)):
                self.waiting.discard(sale_id)
        return len(self.waiting)

    async def _attempt(self, sale_id: str, step: Awaitable[bool]) -> bool:
        try:
            return await step
        except LoadInProgress:
            return False  # the other process adopts or loads it
        except Exception as error:  # noqa: BLE001  # the others have their turn; the next call tries again
            reason = safe_error_text(error)
            _logger.warning("cannot adopt a sale", extra={"sale_id": sale_id, "reason": reason})
            return False

    async def _report(self, sale_id: str, entry: EntryId) -> bool:
        async with self._db.connection() as connection:
            await store.raise_observed_entry(connection, sale_id, entry)
        return True

    async def _adopt(self, sale_id: str) -> bool:
        """Adopt a sale. Returns False if it has to be tried again."""
        keys = SaleKeys(sale_id)
        async with load_lock(self._db, sale_id) as connection:
            (load,) = await lua.read_load_states(self._redis, [keys])
            async with connection.transaction():
                sale = await store.lock(connection, sale_id)
                if load.is_adopted or sale is None or not sale.is_loaded:
                    return load.is_adopted  # by another process; otherwise a load is due
                required = await store.read_required_position(connection, sale_id, load.counted_epoch)
                position = await lua.read_position(self._redis, keys)
                if load.epoch != sale.epoch or position.is_behind(required):
                    self._refuse(sale_id, f"epoch {load.epoch}, {position}", f"epoch {sale.epoch}, {required}")
                    return False
                epoch = await store.begin_adoption(connection, sale_id)
            failpoint("adopt.after_begin")
            adopted = msgspec.structs.replace(sale, epoch=epoch)
            outcome = await lua.adopt(self._redis, keys, sale.epoch, terms_of(adopted), required)
            if outcome is not AdoptOutcome.ADOPTED:
                return False  # the server was replaced meanwhile; the sale is loaded again
            async with connection.transaction():
                await store.end_load(connection, adopted)
        self.behind.pop(sale_id, None)
        _logger.info("adopted a sale on another server", extra={"sale_id": sale_id, "epoch": epoch})
        return True

    def _refuse(self, sale_id: str, actual: str, required: str) -> None:
        reason = f"Redis is behind what was seen of {sale_id} (it has {actual}; required is {required})"
        if self.behind.get(sale_id) != reason:
            _logger.error("a server is behind and takes no orders", extra={"sale_id": sale_id, "reason": reason})
        self.behind[sale_id] = reason
