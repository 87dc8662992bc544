"""Wakes workers when jobs are due, and those who wait for a change of an order, over Redis.

Nothing depends on a wake-up: jobs are rows, and workers and waiters poll as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Database
from commerce.kernel.tasks import cancel_and_wait

_logger = logging.getLogger(__name__)
Name = TypeVar("Name")
_IDLE_S, _RETRY_S = 1.0, 1.0


class _Publisher(Generic[Name]):
    """Publishes names; those that come while a call is in flight leave together."""

    def __init__(self, publish: Callable[[Collection[Name]], Awaitable[None]]) -> None:
        self._publish = publish
        self._waiting: set[Name] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, names: Iterable[Name]) -> None:
        self._waiting.update(names)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            names, self._waiting = self._waiting, set()
            try:
                await self._publish(names)
            except (RedisError, OSError) as error:
                _logger.debug("cannot wake anybody: %s", error)
            except Exception as error:  # noqa: BLE001  # a wake-up is only a hint
                log_failure(_logger, "cannot wake anybody", error)

    async def close(self) -> None:
        """Send what waits."""
        if self._task is not None:
            await asyncio.wait([self._task])


class WakeUps:
    """Publishes wake-ups, without waiting and without errors."""

    def __init__(self, redis: Redis) -> None:
        self._due: _Publisher[str] = _Publisher(lambda queues: lua.publish_due(redis, queues))
        self._changed: _Publisher[UUID] = _Publisher(lambda order_ids: lua.publish_changed(redis, order_ids))

    def publish(self, notes: Iterable[str | UUID]) -> None:
        """Wake the workers of queues (names), and those who wait for a change of orders (ids)."""
        self._due.add(note for note in notes if isinstance(note, str))
        self._changed.add(note for note in notes if isinstance(note, UUID))

    async def close(self) -> None:
        await self._due.close()
        await self._changed.close()


@asynccontextmanager
async def open_wake_ups(redis: Redis, db: Database) -> AsyncIterator[WakeUps]:
    """Publish the wake-ups that are noted on `db`, after each commit."""
    wake_ups = WakeUps(redis)
    db.on_commit = wake_ups.publish
    try:
        yield wake_ups
    finally:
        await wake_ups.close()


class WakeUpListener(Generic[Name]):
    """Events by name: a queue, or the id of an order. Each is set when its name is published.

    All are set when wake-ups may have been lost. While Redis is unavailable none comes."""

    def __init__(self, listen: Callable[[], AsyncIterator[Collection[Name]]], clock: Clock) -> None:
        self._listen = listen
        self._clock = clock
        self._events: dict[Name, set[asyncio.Event]] = defaultdict(set)
        self.is_listening = False
        """true while wake-ups come, as far as is known"""

    def event(self, *names: Name) -> asyncio.Event:
        """Return a new event of these names. Whoever waits clears it before each poll."""
        event = asyncio.Event()
        for name in names:
            self._events[name].add(event)
        return event

    @contextmanager
    def watch(self, name: Name, event: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
        """Yield an event of this name, or the given one, until the block ends."""
        event = event or asyncio.Event()
        self._events[name].add(event)
        try:
            yield event
        finally:
            self._events[name].discard(event)
            if not self._events[name]:
                del self._events[name]

    async def listen_forever(self) -> None:
        while True:
            try:
                is_new = True
                async for names in self._listen():
                    self._set(tuple(self._events) if is_new else names)
                    is_new, self.is_listening = False, True
            except (RedisError, OSError) as error:
                _logger.debug("no wake-ups come, polls take over: %s", error)
            except Exception as error:  # noqa: BLE001  # polls take over
                log_failure(_logger, "no wake-ups come, polls take over", error)
            self.is_listening = False
            await self._clock.sleep(_RETRY_S)

    def _set(self, names: Collection[Name]) -> None:
        for name in names:
            for event in self._events.get(name, ()):
                event.set()


@asynccontextmanager
async def listen_for_due_jobs(redis: Redis, clock: Clock) -> AsyncIterator[WakeUpListener[str]]:
    """Listen for the names of queues that have due jobs until the block ends."""
    async with _listening(WakeUpListener(lambda: lua.listen_due(redis, _IDLE_S), clock)) as listener:
        yield listener


@asynccontextmanager
async def listen_for_changes(redis: Redis, clock: Clock) -> AsyncIterator[WakeUpListener[UUID]]:
    """Listen for the ids of orders that have changed until the block ends."""
    async with _listening(WakeUpListener(lambda: lua.listen_changed(redis, _IDLE_S), clock)) as listener:
        yield listener


@asynccontextmanager
async def _listening(listener: WakeUpListener[Name]) -> AsyncIterator[WakeUpListener[Name]]:
    task = asyncio.create_task(listener.listen_forever())
    try:
        yield listener
    finally:
        await cancel_and_wait(task)
