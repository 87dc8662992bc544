"""A cache that reads in batches, one at a time, and refreshes the keys in use about once a second.

Nothing is read while nobody asks. One batch serves everybody who waits, and also refreshes the other keys that were
asked for since the last one, so the number of queries follows the time and not the number of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from commerce.kernel.tasks import cancel_and_wait

REFRESH_AGE_S = 0.8
"""age from which an entry is read again; the content may be used until it is a second old"""
MAX_AGE_S = 1.0
_MAX_WAIT_S = 0.25
_RETRY_INTERVAL_S = 1.0
_KEYS_PER_READ = 1_000
_MAX_WANTED_KEYS = 20_000
_MAX_ABSENT_ENTRIES = 1_000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class CacheEntry(Generic[Value]):
    """A value as it was at `read_at` (monotonic) and `read_ms` (since 1970); None if there is none."""

    __slots__ = ("is_used", "read_at", "read_ms", "value")

    def __init__(self, value: Value | None, read_at: float, read_ms: int) -> None:
        self.value = value
        self.read_at = read_at
        self.read_ms = read_ms
        self.is_used = True


class RefreshingCache(Generic[Key, Value]):
    """At most `max_entries` values; those not asked for longest go first, and so do keys without a value.

    `read` gets the keys to read with their last values, None if there is none, and returns the present values of
    these keys; a key that it leaves out has none. While it fails, the last values are returned, however old.
    """

    def __init__(
        self,
        read: Callable[[Mapping[Key, Value | None]], Awaitable[Mapping[Key, Value]]],
        clock: Clock,
        max_entries: int,
    ) -> None:
        self._read = read
        self._clock = clock
        self._max_entries = max_entries
        self._entries: dict[Key, CacheEntry[Value]] = {}
        self._absent: dict[Key, CacheEntry[Value]] = {}
        self._wanted: dict[Key, None] = {}
        self._next_batch: asyncio.Future[dict[Key, CacheEntry[Value]]] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_failing = False
        self._retry_at = float("-inf")

    def __len__(self) -> int:
        return len(self._entries) + len(self._absent)

    async def get_many(self, keys: Iterable[Key]) -> dict[Key, CacheEntry[Value]]:
        """Return the entries of the keys, read at most about a second ago.

        Waits a quarter of a second at most for keys that were read before. Raises the error of `read` if it fails for
        a key that is not in memory, and `Overloaded` if too many keys wait to be read.
        """
        now = self._clock.monotonic()
        result: dict[Key, CacheEntry[Value]] = {}
        old: list[Key] = []
        is_complete = True
        for key in keys:
            entry = self._entries.get(key) or self._absent.get(key)
            if entry is not None:
                result[key] = entry
                entry.is_used = True
            if entry is None or now - entry.read_at >= REFRESH_AGE_S:
                old.append(key)
                is_complete &= entry is not None
        if not old or (is_complete and now < self._retry_at):
            return result
        if is_complete and len(self._wanted) + len(old) > _MAX_WANTED_KEYS:
            return result
        batch = self._join_next_batch(old)
        if not (is_complete and self._is_failing):
            await asyncio.wait([batch], timeout=_MAX_WAIT_S if is_complete else None)
            if batch.done() and batch.exception() is None:
                result.update((key, batch.result()[key]) for key in old)
            elif is_complete:
                self._is_failing = True  # slow, or failed: from now on the next callers do not wait
            else:
                batch.result()  # raises its error
        return result

    def find_many(self, keys: Iterable[Key]) -> dict[Key, CacheEntry[Value]]:
        """Return the entries of the keys that are in memory, however old. Reads nothing."""
        entries = ((key, self._entries.get(key) or self._absent.get(key)) for key in keys)
        return {key: entry for key, entry in entries if entry is not None}

    def _join_next_batch(self, keys: list[Key]) -> asyncio.Future[dict[Key, CacheEntry[Value]]]:
        if len(self._wanted) + len(keys) > _MAX_WANTED_KEYS:
            raise Overloaded("too much is looked up at once; repeat the request")
        self._wanted.update(dict.fromkeys(keys))
        if self._next_batch is None:
            self._next_batch = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_batches())
        return self._next_batch

    async def close(self) -> None:
        """Stop reading; nobody may ask any more."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)

    async def _read_batches(self) -> None:
        """Read batches until nobody waits for one."""
        try:
            while self._next_batch is not None:
                await asyncio.sleep(0)  # what arrives in this iteration of the event loop joins
                batch, self._next_batch = self._next_batch, None
                keys, self._wanted = self._wanted, {}
                try:
                    result = await self._read_keys(keys)
                except Exception as error:  # noqa: BLE001  # those who wait for it raise it
                    self._is_failing, self._retry_at = True, self._clock.monotonic() + _RETRY_INTERVAL_S
                    batch.set_exception(error)
                    batch.exception()  # it may be that nobody waits any more
                else:
                    self._is_failing, self._retry_at = False, float("-inf")
                    batch.set_result(result)
        finally:
            self._reading = None

    async def _read_keys(self, wanted: Mapping[Key, None]) -> dict[Key, CacheEntry[Value]]:
        due = self._clock.monotonic() - REFRESH_AGE_S / 2
        keys = dict(wanted)
        for entries in (self._entries, self._absent):
            keys.update((key, None) for key, used in entries.items() if used.is_used and used.read_at <= due)
        result: dict[Key, CacheEntry[Value]] = {}
        remaining = iter(keys)
        while part := list(islice(remaining, _KEYS_PER_READ)):
            read_at, read_ms = self._clock.monotonic(), self._clock.now_ms()
            previous: dict[Key, Value | None] = {}
            for key in part:
                entry = self._entries.get(key)
                previous[key] = None if entry is None else entry.value
            values = await self._read(previous)
            for key in part:
                result[key] = self._keep(key, CacheEntry(values.get(key), read_at, read_ms), key in wanted)
        return result

    def _keep(self, key: Key, entry: CacheEntry[Value], is_used: bool) -> CacheEntry[Value]:
        """Keep an entry as the most recent one, in the place of the oldest if there is no room."""
        entry.is_used = is_used
        self._entries.pop(key, None)
        self._absent.pop(key, None)
        is_absent = entry.value is None
        entries, max_entries = (self._absent, _MAX_ABSENT_ENTRIES) if is_absent else (self._entries, self._max_entries)
        while len(entries) >= max_entries:
            del entries[next(iter(entries))]
        entries[key] = entry
        return entry
