"""Connections to Postgres, pooled for services and single for migrations, with names and timeouts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import asyncpg

from commerce.kernel.errors import NotDurable, NotReady, Overloaded

MIN_VERSION = 15
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic only to the type checker

POSTGRES_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
)
"""Errors while Postgres is unreachable, full or too slow: retry later, the statement is correct."""
POSTGRES_UNAVAILABLE_OR_BUSY = (*POSTGRES_UNAVAILABLE, NotReady, Overloaded)
"""`POSTGRES_UNAVAILABLE` and the errors that `Database.connection` raises."""

_DURABLE = (
    "SELECT name, source FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off' "
    "ORDER BY name"
)
_RISKS = {
    "fsync": "it never flushes its writes to the disk",
    "synchronous_commit": "a commit returns before it is on the disk",
}
_COPY_COLUMN = re.compile(r"^COPY (\w+), line \d+, column (\w+)", re.MULTILINE)


def safe_error_text(error: BaseException) -> str:
    """Format an error for logs, `last_error` columns and HTTP answers without personal data.

    A Postgres error is formatted as message, SQLSTATE and column or constraint. Its DETAIL is left out: it quotes the
    refused row and therefore the customer's address.
    """
    name = type(error).__name__
    if not isinstance(error, asyncpg.PostgresError):
        return f"{name}: {error}"
    if not error.message:  # an error of asyncpg itself quotes the value after a colon
        return f"{name}: {str(error).partition(':')[0]}"
    parts = [f"SQLSTATE {error.sqlstate}"]
    if copy_column := _COPY_COLUMN.search(error.context or ""):
        parts.append(f"column {copy_column[1]}.{copy_column[2]}")
    if error.column_name:
        parts.append(f"column {error.column_name}")
    if error.constraint_name:
        parts.append(f"constraint {error.constraint_name}")
    return f"{name}: {error.message} ({', '.join(parts)})"


def strip_row_details(error: BaseException | None) -> None:
    """Remove DETAIL from a Postgres error and its causes, so that no traceback quotes a row."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None
        error = error.__cause__ or error.__context__


_joined: ContextVar[tuple[Database, Connection] | None] = ContextVar("joined", default=None)


class Database:
    """A pool of connections. `connection()` waits for a free one for `timeout_s` seconds at most."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection from the pool, or join the transaction of `joined_transaction`.

        Raises `Overloaded` if none is free in time, `NotReady` if Postgres is unavailable; nothing was done then.
        """
        joined = _joined.get()
        if joined is not None and joined[0] is self:
            yield joined[1]
            return
        try:
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except TimeoutError:
            raise Overloaded("cannot get a database connection: none became free in time; repeat the request") from None
        except POSTGRES_UNAVAILABLE as error:
            raise NotReady(f"cannot reach the database: {type(error).__name__}; repeat the request") from error
        try:
            yield connection  # type: ignore[misc]  # a proxy with the connection's own methods
        except Exception as error:
            strip_row_details(error)
            raise
        finally:
            await asyncio.shield(self._pool.release(connection))

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Connection]:
        """Borrow a connection and open a transaction on it. `options` are asyncpg's (isolation, readonly)."""
        async with self.connection() as connection, connection.transaction(**options):
            yield connection

    @asynccontextmanager
    async def joined_transaction(self) -> AsyncIterator[Connection]:
        """Open a transaction that this task's further connections and transactions of this database join.

        What they commit is committed together, or not at all. Nothing but Postgres may be changed inside, and no other
        task may take part."""
        async with self.transaction() as connection:
            token = _joined.set((self, connection))
            try:
                yield connection
            finally:
                _joined.reset(token)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Open a read-only transaction in which all statements see the same state."""
        async with self.transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection

    async def close(self) -> None:
        """Wait for running work for `timeout_s` seconds, then cut the connections."""
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout_s)
        except TimeoutError:
            self._pool.terminate()


async def open_database(
    url: str, *, name: str, connections: int, timeout_s: float, required_durability: str | None = None
) -> Database:
    """Open a pool. `name` shows in `pg_stat_activity`; every statement is bound by `timeout_s`.

    With `required_durability` every new connection is checked by `verify_postgres_durability`, because the server
    after a failover may have other settings. Raises `NotDurable`, here and from `connection()`.
    """

    async def verify(connection: Connection) -> None:
        if required_durability is not None:
            await verify_postgres_durability(connection, required_durability)

    pool = await asyncpg.create_pool(
        url, min_size=1, max_size=connections, init=verify, **_connection_options(name, timeout_s)
    )
    return Database(pool, timeout_s)


async def verify_postgres_durability(connection: Connection, durability: str) -> None:
    """Raise `NotDurable` if a crash of the server may lose commits of this connection.

    An order leaves Redis when its commit returns, so Postgres must be as durable as Redis. Durability `memory` requires
    nothing. Every value of synchronous_commit except `off` waits at least for the server's own disk.
    """
    if durability == "memory":
        return
    rows = await connection.fetch(_DURABLE)
    risks = [f"{_RISKS[row['name']]} (set {row['name']} to on; off comes from: {row['source']})" for row in rows]
    if risks:
        raise NotDurable(f"cannot use Postgres with durability {durability!r}: {'; '.join(risks)}")


async def connect(url: str, *, name: str, timeout_s: float) -> Connection:
    """Open a single connection with the same name and timeouts."""
    return await asyncpg.connect(url, **_connection_options(name, timeout_s))


def _connection_options(name: str, timeout_s: float) -> dict[str, Any]:
    return {
        "timeout": timeout_s,
        "command_timeout": timeout_s + 1,  # the server's timeout below comes first and keeps the connection usable
        "server_settings": {
            "application_name": f"floodgate {name}",
            "timezone": "UTC",
            "statement_timeout": str(int(timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(int(timeout_s * 2000)),
            "jit": "off",  # compiling costs more than any statement of this project
        },
    }


async def check_version(connection: Connection) -> None:
    """Raise `NotReady` if the server is older than those that the tests run on."""
    major = connection.get_server_version().major
    if major < MIN_VERSION:
        raise NotReady(f"cannot use Postgres {major}: it is too old; install {MIN_VERSION} or newer")
