"""Adopts sales on a server that took the place of the one they were loaded on.

A promoted replica, and a server that restarted, may lack orders and changes that others have seen: selling on from such
a copy would sell units twice. The scripts therefore move nothing on a process whose run id is not the one in the sale's
meta. A sale is adopted in these steps:

1. Each gateway notes in Postgres the newest entry that it has seen of the sale, twice a second, and at once when it
   meets the new server. After a second for the others to do so, any process goes on.
2. Lock the sale's row and epoch: marks of changes and commits of writers, which share them, are finished or wait.
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
from commerce.sales.loading import REPORT_WAIT_S, load_lock, terms_of
from lua import AdoptOutcome, EntryId, SaleKeys

_logger = logging.getLogger(__name__)


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
        self._closed: set[str] = set()
        self._reported: dict[str, EntryId] = {}

    @property
    def problem(self) -> str | None:
        """The reason why a sale that is not closed takes no orders here, None if there is none."""
        for sale_id, reason in self.behind.items():
            if sale_id not in self._closed:
                return reason
        return "this Redis is new: it is compared with the previous one first" if self.is_unfinished else None

    @property
    def is_unfinished(self) -> bool:
        """True if there are sales to adopt at once."""
        return bool(self.waiting - self.behind.keys() - self._closed)

    async def report_entries(self, newest_entries: Mapping[str, EntryId]) -> set[str]:
        """Note in Postgres the newest entries of this process. Returns the sales of which that failed."""
        changed = {sale_id: entry for sale_id, entry in newest_entries.items() if self._reported.get(sale_id) != entry}
        failed = set()
        for sale_id, entry in changed.items():
            if await self._attempt(sale_id, self._report(sale_id, entry)):
                self._reported[sale_id] = entry
            else:
                failed.add(sale_id)
        return failed

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
        failed = await self.report_entries(newest_entries)
        await self._clock.sleep(REPORT_WAIT_S)
        async with self._db.connection() as connection:
            self._closed = await store.list_closed(connection, foreign)
        for sale_id in sorted(self.waiting - failed, key=lambda sale_id: sale_id in self._closed):
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
            await lua.check_writable(self._redis)  # the epoch is raised for nothing if the server takes no writes
            async with connection.transaction():
                sale = await store.lock(connection, sale_id)
                if load.is_adopted or sale is None:
                    return True  # by another process
                await store.stop_writers(connection, sale_id)
                required = await store.read_required_position(connection, sale_id, load.counted_epoch)
                position = await lua.read_position(self._redis, keys)
                if not sale.is_loaded:  # a load is due, which counts the changes again
                    if position.last_entry < required.last_entry:
                        self._refuse(sale_id, f"{position.last_entry}", f"{required.last_entry}")
                    return False
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
