"""Wakes workers when jobs are due and those who wait when jobs have ended, over Redis.

Nothing depends on a wake-up: jobs are rows, and workers and waiters poll as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
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
        self._ended: _Publisher[UUID] = _Publisher(lambda subjects: lua.publish_ended(redis, subjects))

    def wake_workers(self, queues: Iterable[str]) -> None:
        """Wake the workers of queues that have jobs that are due now."""
        self._due.add(queues)

    def wake_waiters(self, subjects: Iterable[UUID]) -> None:
        """Wake those who wait for the result of a job of these subjects."""
        self._ended.add(subjects)

    async def close(self) -> None:
        await self._due.close()
        await self._ended.close()


@asynccontextmanager
async def open_wake_ups(redis: Redis, db: Database) -> AsyncIterator[WakeUps]:
    """Publish a wake-up after each commit on `db` that has put a due job."""
    wake_ups = WakeUps(redis)
    db.on_commit = wake_ups.wake_workers
    try:
        yield wake_ups
    finally:
        await wake_ups.close()


class DueJobs:
    """Events by queue, set whenever a queue has new due jobs, and when a wake-up may have been lost."""

    def __init__(self) -> None:
        self._events: dict[str, list[asyncio.Event]] = defaultdict(list)

    def event(self, *queues: str) -> asyncio.Event:
        """Create the event of a worker of these queues, which clears it before it claims jobs."""
        event = asyncio.Event()
        for queue in queues:
            self._events[queue].append(event)
        return event

    def set_all(self) -> None:
        self.set(tuple(self._events))

    def set(self, queues: Iterable[str]) -> None:
        for queue in queues:
            for event in self._events.get(queue, ()):
                event.set()


@asynccontextmanager
async def listen_for_due_jobs(redis: Redis, clock: Clock) -> AsyncIterator[DueJobs]:
    """Listen for wake-ups until the block ends. While Redis is unavailable none comes."""
    due_jobs = DueJobs()
    task = asyncio.create_task(_listen_forever(redis, clock, due_jobs))
    try:
        yield due_jobs
    finally:
        await cancel_and_wait(task)


async def _listen_forever(redis: Redis, clock: Clock, due_jobs: DueJobs) -> None:
    while True:
        try:
            is_new = True
            async for queues in lua.listen_due(redis, _IDLE_S):
                if is_new:
                    due_jobs.set_all()
                is_new = False
                due_jobs.set(queues)
        except (RedisError, OSError) as error:
            _logger.debug("no wake-ups come, jobs wait for polls: %s", error)
        except Exception as error:  # noqa: BLE001  # polls take over
            log_failure(_logger, "no wake-ups come, jobs wait for polls", error)
        await clock.sleep(_RETRY_S)
