"""Checks of Redis and Postgres for `/health/ready`: what they refuse now, at a bounded cost."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError

import lua
from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.postgres import connect, is_read_only, safe_error_text
from commerce.kernel.redis_client import check_redis
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from config.settings import Settings

_logger = logging.getLogger(__name__)
_MAX_AGE_S = 1.0
_REDIS_TIMEOUT_S = 2.0
_DATABASE_INTERVAL_S = 2.0
_DATABASE_TIMEOUT_S = 2.0
_WRITE_REFUSALS = {
    "MISCONF": "its last snapshot or write to the append-only file failed (is the disk full? see its log)",
    "OOM": "it has reached maxmemory (give it more memory)",
    "NOREPLICAS": "fewer replicas are connected than its min-replicas-to-write",
    "READONLY": "it is a replica (give the master's address)",
}
_CODES: dict[type[Exception], str] = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY"}
"""codes that the client takes off the text"""
_NO_PERMISSION = re.compile("NOPERM|no permissions|can't (run|access)", re.IGNORECASE)


class SharedCheck:
    """A check whose result all callers share: it runs once at a time, and at most once a second.

    Whoever may ask anonymously must not cost more by asking more.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], clock: Clock, timeout_s: float) -> None:
        self._check = check
        self._clock = clock
        self._timeout_s = timeout_s
        self._running: asyncio.Task[str] | None = None
        self._finished_at = float("-inf")
        self._reason = ""

    async def result(self) -> str:
        """Return `ok` or the reason, at most a second old.

        The reason names no address and no user, because anybody may ask; the log has all of it.
        """
        running = self._running
        if running is None or (running.done() and self._clock.monotonic() - self._finished_at >= _MAX_AGE_S):
            running = self._running = asyncio.create_task(self._run())
        return await asyncio.shield(running)  # a caller that leaves does not end the check of the others

    async def _run(self) -> str:
        reason, details = "ok", ""
        try:
            await asyncio.wait_for(self._check(), self._timeout_s)
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
        except Exception as error:  # noqa: BLE001  # any error means not ready, and the answer shows it
            reason = error.detail if isinstance(error, ProblemError) else type(error).__name__
            details = safe_error_text(error.__cause__ or error)
        finally:
            self._finished_at = self._clock.monotonic()
        if reason != (self._reason or "ok"):
            _logger.warning("the state of Redis has changed", extra={"reason": reason, "details": details})
        self._reason = reason
        return reason


def build_redis_check(redis: Redis, link: RedisMultiplexer, settings: Settings, clock: Clock) -> SharedCheck:
    """Build the check that Redis keeps its promise and would take an order now.

    Flags in INFO do not tell that: memory, replicas, permissions and the disk each have their own. A script that may
    write, on the connection of the orders, passes the same checks as an order.
    """

    async def check() -> None:
        try:
            await check_redis(redis, settings.durability, settings.replicas)
        except NotReady as error:
            if error.__cause__ is None:
                raise
            raise NotReady(f"cannot reach Redis: {type(error.__cause__).__name__}") from error.__cause__
        try:
            await lua.check_writable(link)
        except RedisError as error:
            raise NotReady(f"Redis takes no orders: {_explain(error)}") from error

    return SharedCheck(check, clock, _REDIS_TIMEOUT_S)


def _explain(error: RedisError) -> str:
    words = [
        *str(error).split(),
        _CODES.get(type(error)),
    ]  # in a script's error Redis 6 puts the code after other words
    if _NO_PERMISSION.search(str(error)):
        return "its user can't run this command (give it the rights on the commands and keys of a sale)"
    return next((reason for code, reason in _WRITE_REFUSALS.items() if code in words), type(error).__name__)


class DatabaseMonitor:
    """The state of Postgres as a new connection finds it: no log-in, read-only, or usable.

    Open connections may not show it, and orders do not need it. So this polls on its own, and no probe waits for it.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self.failure: str | None = None
        """reason why a new connection cannot be used, None if it can"""
        self.is_read_only = False

    async def poll_forever(self) -> None:
        """Poll until cancelled."""
        while True:
            previous = self.failure
            try:
                self.is_read_only = await asyncio.wait_for(self._is_read_only(), _DATABASE_TIMEOUT_S)
                self.failure = "it is read-only: is this a standby?" if self.is_read_only else None
            except Exception as error:  # noqa: BLE001  # orders go on, and the next poll may succeed
                self.is_read_only, self.failure = False, f"cannot log in: {_describe(error)}"
            if self.failure != previous:
                _logger.warning("the state of the database has changed", extra={"reason": self.failure or "ok"})
            await self._clock.sleep(_DATABASE_INTERVAL_S)

    async def _is_read_only(self) -> bool:
        connection = await connect(self._url, name="readiness", timeout_s=_DATABASE_TIMEOUT_S, must_own_session=False)
        try:
            return await is_read_only(connection)
        finally:
            connection.terminate()


def _describe(error: Exception) -> str:
    """Name an error without its text, which has users and addresses: anybody may ask for readiness."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        return f"{type(error).__name__} (SQLSTATE {error.sqlstate})"
    return type(error).__name__
