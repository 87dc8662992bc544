"""Connections to Postgres: pooled for services, single for migrations; each with a name, limits and timeouts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
"""What it looks like when Postgres is away, full or too slow: try again later, the statement is not at fault."""
POSTGRES_UNAVAILABLE_OR_BUSY = (*POSTGRES_UNAVAILABLE, NotReady, Overloaded)
"""The same where a connection is asked for as well, which `Database.connection` refuses in words of its own."""

_DURABLE = (
    "SELECT name, source FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off' "
    "ORDER BY name"
)
_FAULTS = {
    "fsync": "it never makes sure that the disk has what it wrote",
    "synchronous_commit": "a commit returns before the disk has it",
}
_COPIED = re.compile(r"^COPY (\w+), line \d+, column (\w+)", re.MULTILINE)


def safe_error_text(error: BaseException) -> str:
    """An error in words that may be logged, kept and shown.

    Of Postgres: the message, the SQLSTATE and the place. Never the detail, which quotes the row that was refused, and
    with it the customer's address.
    """
    name = type(error).__name__
    if not isinstance(error, asyncpg.PostgresError):
        return f"{name}: {error}"
    if not error.message:  # asyncpg's own, which quotes the value after a colon
        return f"{name}: {str(error).partition(':')[0]}"
    where = [f"SQLSTATE {error.sqlstate}"]
    if copied := _COPIED.search(error.context or ""):
        where.append(f"column {copied[1]}.{copied[2]}")
    if error.column_name:
        where.append(f"column {error.column_name}")
    if error.constraint_name:
        where.append(f"constraint {error.constraint_name}")
    return f"{name}: {error.message} ({', '.join(where)})"


def strip_row_details(error: BaseException | None) -> None:
    """Take the details off an error and those it comes from, so that no traceback quotes a row."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None
        error = error.__cause__ or error.__context__


class Database:
    """A small pool. `connection()` waits for a free one at most `timeout_s`, then refuses."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, given back afterwards. Raises `Overloaded` or `NotReady`, having done nothing."""
        try:
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except TimeoutError:
            raise Overloaded("no database connection came free in time; repeat the request") from None
        except POSTGRES_UNAVAILABLE as error:
            raise NotReady(f"the database does not answer ({type(error).__name__}); repeat the request") from error
        try:
            yield connection  # type: ignore[misc]  # a proxy with the connection's own methods
        except Exception as error:
            strip_row_details(error)
            raise
        finally:
            await asyncio.shield(self._pool.release(connection))

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Connection]:
        """One connection inside one transaction; `options` are asyncpg's (isolation, readonly)."""
        async with self.connection() as connection, connection.transaction(**options):
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A transaction that reads one state, however many statements it takes."""
        async with self.transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection

    async def close(self) -> None:
        """Wait a little for work in hand, then cut off."""
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout_s)
        except TimeoutError:
            self._pool.terminate()


async def open_database(
    url: str, *, name: str, connections: int, timeout_s: float, must_keep: str | None = None
) -> Database:
    """Open a pool. `name` shows in `pg_stat_activity`; every statement is bound by `timeout_s`.

    With `must_keep` (durability) every new connection looks whether a commit is on the disk when it returns. Raises
    `NotDurable` if not, here and from `connection()`: the server after a failover need not be set like the one before.
    """

    async def verified(connection: Connection) -> None:
        if must_keep is not None:
            await verify_postgres_durability(connection, must_keep)

    pool = await asyncpg.create_pool(url, min_size=1, max_size=connections, init=verified, **_limits(name, timeout_s))
    return Database(pool, timeout_s)


async def verify_postgres_durability(connection: Connection, durability: str) -> None:
    """Raise `NotDurable` if what this connection commits may be lost with a crash of the server.

    An order leaves Redis when its commit returns, so Postgres must keep as much as Redis did. At `memory` nothing must
    be kept. Every setting of synchronous_commit but `off` waits at least for the server's own disk.
    """
    if durability == "memory":
        return
    rows = await connection.fetch(_DURABLE)
    faults = [f"{_FAULTS[row['name']]} (set {row['name']} to on; off comes from: {row['source']})" for row in rows]
    if faults:
        raise NotDurable(f"Postgres does not keep what durability {durability!r} promises: {'; '.join(faults)}")


async def connect(url: str, *, name: str, timeout_s: float) -> Connection:
    """Open a single connection with the same limits."""
    return await asyncpg.connect(url, **_limits(name, timeout_s))


def _limits(name: str, timeout_s: float) -> dict[str, Any]:
    return {
        "timeout": timeout_s,
        "command_timeout": timeout_s + 1,  # the server's own timeout below comes first and is the cleaner one
        "server_settings": {
            "application_name": f"floodgate {name}",
            "timezone": "UTC",
            "statement_timeout": str(int(timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(int(timeout_s * 2000)),
            "jit": "off",  # compiling costs more than any of our statements
        },
    }


async def check_version(connection: Connection) -> None:
    """Refuse a server that is older than what the tests run on."""
    major = connection.get_server_version().major
    if major < MIN_VERSION:
        raise NotReady(f"Postgres {major} is too old: Floodgate needs {MIN_VERSION} or newer")
