"""Connections to Postgres, pooled for services and single for migrations, with names and timeouts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from asyncpg.exceptions import UnknownPostgresError

from commerce.kernel.connection_shares import ConnectionShares
from commerce.kernel.errors import NotDurable, NotReady, Overloaded
from commerce.kernel.session_connection import SessionConnection

MIN_VERSION = 15
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic only to the type checker

POSTGRES_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that ends between two messages
    asyncpg.PostgresConnectionError,  # 08; PgBouncer's own refusals too
    asyncpg.InvalidCachedStatementError,  # 0A000 of a plan from before a migration; the repeat has a new plan
    asyncpg.OutdatedSchemaCacheError,  # the same, found by the client
    asyncpg.ReadOnlySQLTransactionError,  # 25006
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03
    asyncpg.TransactionTimeoutError,  # 25P04
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.InvalidCatalogNameError,  # 3D
    asyncpg.InvalidSchemaNameError,  # 3F
    asyncpg.TransactionRollbackError,  # 40
    asyncpg.InsufficientPrivilegeError,  # 42501
    asyncpg.UndefinedTableError,  # 42P01 of another or an empty database: the statements fit the schema
    asyncpg.InsufficientResourcesError,  # 53
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55
    asyncpg.OperatorInterventionError,  # 57
    asyncpg.PostgresSystemError,  # 58
    UnknownPostgresError,  # of a pooler or a proxy; asyncpg knows those of Postgres
)
"""Errors while Postgres refuses, is full, slow or unreachable: the statement is correct, retry later.

By SQLSTATE class (https://www.postgresql.org/docs/current/errcodes-appendix.html): asyncpg derives its classes so.
"""
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
_REMEDIES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        asyncpg.ReadOnlySQLTransactionError,
        "let DATABASE_URL name the primary, or set default_transaction_read_only off",
    ),
    (asyncpg.InvalidAuthorizationSpecificationError, "check the user and password in DATABASE_URL, and pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "create the database, or correct its name in DATABASE_URL"),
    (
        (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError),
        "let DATABASE_URL name the shop's database, and run `floodgate migrate`",
    ),
    (asyncpg.InsufficientPrivilegeError, "grant the user in DATABASE_URL the rights on the shop's tables"),
    (
        (asyncpg.TooManyConnectionsError, asyncpg.ConfigurationLimitExceededError),
        "raise max_connections, or lower FLOODGATE_LIMITS__DATABASE_CONNECTIONS",
    ),
    (asyncpg.DiskFullError, "free space on the disk of Postgres"),
    (
        (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError),
        "repeat it; if it fails again, look for what blocks or slows Postgres",
    ),
    (
        (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError),
        "repeat it: a migration has changed the schema",
    ),
)
"""remedies by error; the first that fits counts"""
_SESSION_POOLING = "set the pooler to session pooling (PgBouncer: pool_mode = session)"
_BACKEND = "SELECT pg_backend_pid()"
_POOLER_WAIT_S = 2.0
_REMEDY = "check that Postgres runs and that DATABASE_URL names it"
_COPY_COLUMN = re.compile(r"^COPY (\w+), line \d+, column (\w+)", re.MULTILINE)


async def is_read_only(connection: Connection) -> bool:
    """Tell whether the server takes no writes, as a standby does."""
    return bool(await connection.fetchval("SHOW transaction_read_only") == "on")


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


def explain_unavailable(error: BaseException) -> str:
    """Return in one line why Postgres cannot be used now and what to do about it."""
    remedy = next((remedy for kinds, remedy in _REMEDIES if isinstance(error, kinds)), _REMEDY)
    reason = " ".join(safe_error_text(error).split()).removesuffix(":")
    return f"cannot use Postgres: {reason}; {remedy}"


def strip_row_details(error: BaseException | None) -> None:
    """Remove DETAIL from a Postgres error and its causes, so that no traceback quotes a row."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None
        error = error.__cause__ or error.__context__


_joined: ContextVar[tuple[Database, asyncio.Task[Any] | None, Connection] | None] = ContextVar("joined", default=None)
"""the open `joined_transaction` and its task

Tasks that it starts inherit the variable, and take no part."""


def note_for_commit(connection: Connection, note: str | UUID) -> None:
    """Have `Database.on_commit` called with this note once the connection's work is committed.

    Does nothing for a connection that was opened alone."""
    notes: set[str | UUID] | None = getattr(connection, "commit_notes", None)
    if notes is not None:
        notes.add(note)


class Database:
    """A pool of connections with shares. `connection()` waits `timeout_s` seconds for one at most.

    `on_commit` is called with the notes of `note_for_commit`; it must not wait or raise."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], shares: ConnectionShares, timeout_s: float) -> None:
        self._pool = pool
        self.shares = shares
        self._timeout_s = timeout_s
        self.on_commit: Callable[[Collection[str | UUID]], None] = lambda notes: None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection from the pool, or join the transaction of `joined_transaction`.

        A task borrows one at a time. Raises `Overloaded` if none is free in time, `NotReady` if Postgres is
        unavailable; nothing was done then.
        """
        joined = _joined.get()
        if joined is not None and joined[:2] == (self, asyncio.current_task()):
            yield joined[2]
            return
        async with self.shares.hold(self._timeout_s), self._borrow() as connection:
            yield connection

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[Connection]:
        try:
            connection = await self._pool.acquire(timeout=self._timeout_s)
        except TimeoutError:
            raise Overloaded("cannot connect to the database in time; repeat the request") from None
        except (*POSTGRES_UNAVAILABLE, asyncpg.PostgresError) as error:
            raise NotReady(f"cannot reach the database: {type(error).__name__}; repeat the request") from error
        notes: set[str | UUID] = connection.commit_notes  # type: ignore[attr-defined]
        notes.clear()
        try:
            yield connection  # type: ignore[misc]  # a proxy with the connection's own methods
            if notes:
                self.on_commit(frozenset(notes))
        except asyncpg.ReadOnlySQLTransactionError:
            connection.terminate()  # the next connection may reach the new primary
            raise
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

        What they commit is committed together, or not at all. Nothing but Postgres may be changed inside. Other tasks
        take no part, those that are started inside neither."""
        async with self.transaction() as connection:
            token = _joined.set((self, asyncio.current_task(), connection))
            try:
                yield connection
            finally:
                _joined.reset(token)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Open a read-only transaction in which all statements see the same state.

        Inside a joined transaction its statements are part of that one, and see what it has changed."""
        async with self.connection() as connection:
            if connection.is_in_transaction():
                yield connection
                return
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection

    async def close(self) -> None:
        """Wait for running work for `timeout_s` seconds, then cut the connections."""
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout_s)
        except TimeoutError:
            self._pool.terminate()


async def open_database(
    url: str, *, name: str, shares: ConnectionShares, timeout_s: float, required_durability: str | None = None
) -> Database:
    """Open a pool. `name` shows in `pg_stat_activity`; every statement is bound by `timeout_s`.

    With `required_durability` every new connection is checked by `verify_postgres_durability`, because the server
    after a failover may have other settings. Raises `NotDurable`, here and from `connection()`, and `NotReady` if
    Postgres cannot be used.
    """
    settings = _session_settings(name, timeout_s)

    async def prepare(connection: Connection) -> None:
        await _apply_settings(connection, settings)
        if required_durability is not None:
            await verify_postgres_durability(connection, required_durability)

    with _explain_failed_connect():
        pool = await asyncpg.create_pool(
            url, min_size=0, max_size=shares.total, init=prepare, **_connection_options(timeout_s)
        )
        try:
            async with pool.acquire(timeout=timeout_s) as connection:
                await _verify_own_session(connection, url, timeout_s)  # type: ignore[arg-type]  # a proxy
        except BaseException:
            pool.terminate()
            raise
    return Database(pool, shares, timeout_s)


async def limit_lock_waits(connection: Connection, max_s: float) -> None:
    """Limit the waits of this transaction for locks. A longer one raises `LockNotAvailableError`."""
    await connection.execute(f"SET LOCAL lock_timeout = {max_s * 1000:.0f}")


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


async def connect(url: str, *, name: str, timeout_s: float, must_own_session: bool = True) -> Connection:
    """Open a single connection with the same name and timeouts.

    Raises `NotReady` if Postgres cannot be used. With `must_own_session` a pooler may not share the session; behind a
    full one that check takes up to two seconds.
    """
    with _explain_failed_connect():
        connection: Connection = await asyncpg.connect(url, **_connection_options(timeout_s))
        try:
            await _apply_settings(connection, _session_settings(name, timeout_s))
            if must_own_session:
                await _verify_own_session(connection, url, timeout_s)
        except BaseException:
            connection.terminate()
            raise
    return connection


@contextmanager
def _explain_failed_connect() -> Iterator[None]:
    """Turn an error of the block into a `NotReady` that says what to do; nothing was done yet."""
    try:
        yield
    except (*POSTGRES_UNAVAILABLE, asyncpg.PostgresError) as error:
        raise NotReady(explain_unavailable(error)) from error
    except KeyError:  # asyncpg looks up the name of the process's user
        raise NotReady(
            "cannot use Postgres: DATABASE_URL names no user, and this process's user id has no name; "
            "write postgresql://USER@HOST/DATABASE"
        ) from None


@asynccontextmanager
async def session_lock(connection: Connection, lock: str, unlock: str, *args: Any) -> AsyncIterator[bool]:
    """Hold an advisory lock of the session, by statements that take it and release it.

    Yields False if another has it. If one of them fails the connection is closed: in the pool it might keep the lock.
    """
    with _closed_on_failure(connection):
        is_held = bool(await connection.fetchval(lock, *args))
    try:
        yield is_held
    finally:
        if is_held:
            with _closed_on_failure(connection):
                await connection.execute(unlock, *args)


@contextmanager
def _closed_on_failure(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


def _connection_options(timeout_s: float) -> dict[str, Any]:
    return {
        "timeout": timeout_s,
        "command_timeout": timeout_s + 1,  # the server's timeout comes first and keeps the connection usable
        "connection_class": SessionConnection,
    }


def _session_settings(name: str, timeout_s: float) -> dict[str, str]:
    """Return the settings of a connection's session, with the values that `pg_settings` shows."""
    return {
        "application_name": f"floodgate {name}",
        "TimeZone": "UTC",
        "statement_timeout": str(int(timeout_s * 1000)),
        "idle_in_transaction_session_timeout": str(int(timeout_s * 2000)),
        "jit": "off",  # compiling costs more than any statement of this project
    }


async def _apply_settings(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set the session's settings and check that the next transaction has them.

    Raises `NotReady` if it has not. They are no start-up parameters, because PgBouncer refuses a connection that has
    unknown ones.
    """
    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
    rows = await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", list(settings))
    current = {row["name"]: row["setting"] for row in rows}
    if lost := [name for name, value in settings.items() if current.get(name) != value]:
        raise NotReady(f"cannot use Postgres: {', '.join(lost)} does not stay set; {_SESSION_POOLING}")


async def _verify_own_session(connection: Connection, url: str, timeout_s: float) -> None:
    """Raise `NotReady` if a pooler shares sessions: their settings and locks would not hold."""
    backend = await connection.fetchval(_BACKEND)
    if backend == connection.get_server_pid():
        return  # no pooler in between
    try:
        second = await asyncpg.connect(url, **_connection_options(min(timeout_s, _POOLER_WAIT_S)))
        try:
            is_shared = await second.fetchval(_BACKEND) == backend
        finally:
            second.terminate()
    except (TimeoutError, asyncpg.QueryCanceledError):
        return  # it waits for a session of its own
    if is_shared:
        raise NotReady(f"cannot use Postgres: two connections share a session of the pooler; {_SESSION_POOLING}")


async def check_version(connection: Connection) -> None:
    """Raise `NotReady` if the server is older than those that the tests run on."""
    major = connection.get_server_version().major
    if major < MIN_VERSION:
        raise NotReady(f"cannot use Postgres {major}: it is too old; install {MIN_VERSION} or newer")
