"""Reads one sale's stream for a writer: entries of before a restart, of others, orphans, new ones.

An entry is held from the time it is read until it is acknowledged or given up; meanwhile it is not read again. A
writer renews its claim on the entries that it is storing, so that a slow Postgres does not make writers take entries
from each other. It does not between attempts: a writer that can store takes over from one that cannot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import lua
from config.settings import WriterSettings
from lua import Entry, EntryId, SaleKeys
from workers.loop import wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_CONSUMER_IDLE_MS = 3_600_000
_FIRST = EntryId(0, 0)


class ReadSlots:
    """Limits concurrent reads to `writer.concurrent_reads`.

    Each read that waits holds a Redis connection. With more readers than slots each read waits for a shorter time, so
    that every sale is still read once within `writer.read_block_ms`."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrent_reads)  # first come, first served
        self.readers = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[int]:
        """Wait for a slot. Yields for how many milliseconds the read may block."""
        async with self._slots:
            share = min(1.0, self._settings.concurrent_reads / max(1, self.readers))
            yield max(1, int(self._settings.read_block_ms * share))  # 0 would block without limit


class StreamReader:
    """Reads one sale's stream as the consumer of this process."""

    def __init__(self, services: WorkerServices, sale_id: str) -> None:
        self._services = services
        self._settings = services.settings.writer
        self._sale_id = sale_id
        self._keys = SaleKeys(sale_id)
        self._consumer = services.instance
        self._pending_after: EntryId | None = _FIRST  # None: no pending entry is left to read
        self._claim_at = 0.0
        self._held: dict[EntryId, Entry] = {}

    def read_pending_again(self) -> None:
        """Begin with the pending entries, because a read failed: its reply may be lost."""
        self._pending_after = _FIRST

    async def take(self, block_ms: int, *, may_claim: bool) -> list[Entry]:
        """Return the next entries, which are then held. `may_claim` permits entries of other consumers."""
        entries = [entry for entry in await self._next_entries(block_ms, may_claim) if entry.id not in self._held]
        self._held.update((entry.id, entry) for entry in entries)
        return entries

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Note that the entries are no longer held; those that are not acknowledged stay pending."""
        for entry in entries:
            self._held.pop(entry.id, None)

    @asynccontextmanager
    async def renewing(self, entries: Sequence[Entry]) -> AsyncIterator[None]:
        """Keep other consumers from claiming held entries."""
        done = asyncio.Event()
        renewal = asyncio.create_task(self._renew(entries, done), name=f"renew {self._sale_id}")
        try:
            yield
        finally:
            done.set()  # no cancel(): a Redis call may end with another error in its place
            await renewal

    async def _renew(self, entries: Sequence[Entry], done: asyncio.Event) -> None:
        while True:
            await wait_or_stop(done, self._settings.claim_idle_ms / 3_000)
            if done.is_set():
                return
            try:
                await self._renew_once(entries)
            except Exception as error:  # noqa: BLE001  # the next renewal is soon enough
                _logger.warning("cannot renew claims", extra={"sale_id": self._sale_id, "reason": str(error)})

    async def _renew_once(self, entries: Sequence[Entry]) -> None:
        await lua.renew_claims(self._services.redis, self._keys, self._consumer, entries)

    async def _next_entries(self, block_ms: int, may_claim: bool) -> list[Entry]:
        services, count = self._services, self._settings.entries_per_read
        if self._pending_after is not None:
            entries, self._pending_after = await lua.read_pending(
                services.redis, self._keys, self._consumer, self._pending_after, count
            )
            return entries
        if may_claim and services.clock.monotonic() >= self._claim_at:
            if entries := await self._claim():
                return entries
            self._claim_at = services.clock.monotonic() + self._settings.claim_idle_ms / 1_000
        return await lua.read_new(services.redis, self._keys, self._consumer, count, block_ms)

    async def _claim(self) -> list[Entry]:
        """Claim entries that no other consumer will store: it died, or it was deleted."""
        redis, keys, settings = self._services.redis, self._keys, self._settings
        count = settings.entries_per_read
        if self._held:  # otherwise it might claim them from itself
            await self._renew_once([*self._held.values()])
        if entries := await lua.claim_idle_entries(redis, keys, self._consumer, settings.claim_idle_ms, count):
            self._log("claimed idle stream entries", entries)
            return entries
        if entries := await lua.claim_orphans(redis, keys, self._consumer, count):
            self._log("claimed stream entries that were neither pending nor new", entries)
            return entries
        await lua.delete_idle_consumers(redis, keys, _CONSUMER_IDLE_MS)
        return []

    def _log(self, message: str, entries: Sequence[Entry]) -> None:
        _logger.warning(message, extra={"sale_id": self._sale_id, "entries": len(entries)})
