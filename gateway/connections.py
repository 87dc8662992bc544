"""Connections: the base of all, those that aiohttp answers, and the registry."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, cast

from aiohttp import web

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from config.settings import LimitSettings
from gateway import metrics, problems
from gateway.aiohttp_handler import AiohttpHandler
from gateway.client_addresses import UNKNOWN_CLIENT, Client, ClientAddresses
from gateway.lingering import close_after_client, count_unsent

_TOO_MANY_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 2\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
)
_TOO_MANY_AT_GATEWAY = "too many connections are open at this gateway; try again in a moment"
_TOO_MANY_OF_ADDRESS = "too many connections are open from your address; use those, or close some"
_logger = logging.getLogger(__name__)
_TIMEOUT_SWEEP_INTERVAL_S = 0.25
_MAX_LINGERING_REFUSED = 100
_CONNECTIONS_PER_ITERATION = 100
"""connections swept before the event loop continues: ten thousand in a row would delay all orders"""


class ManagedConnection(Protocol):
    """A connection in the registry."""

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection if its client is too slow.

        The registry calls this several times a second; `now` is the event loop's time.
        """

    def close_gracefully(self) -> None:
        """Close now if idle, otherwise after the pending response: the process is to end."""

    def abort(self) -> None:
        """Close at once."""


class ConnectionState:
    """The party that answers on the connection.

    Not an Enum: in Python 3.11 a lookup of its members costs as much as ten of these.
    """

    IDLE: Final = 0
    """none: a request may begin, or has begun to arrive"""
    ANSWERING: Final = 1
    """the fast path, which places an order or reads memory"""
    DELEGATED: Final = 2
    """aiohttp, for one request"""
    HANDED_OVER: Final = 3
    """aiohttp, permanently"""
    RESTING: Final = 4
    """none: the client was refused, and what it sends before its Retry-After waits"""


class ConnectionRegistry:
    """The connections of one port of the process.

    There are at most `max_connections`, by default `limits.connections`, and `limits.connections_per_address` of each
    address that `addresses` finds. Each port has its own registry, so that a crowd at one port keeps nobody from
    another.
    """

    def __init__(
        self,
        limits: LimitSettings,
        clock: Clock,
        addresses: ClientAddresses | None = None,
        *,
        port: str = "public",
        max_connections: int | None = None,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._max_connections = limits.connections if max_connections is None else max_connections
        self._gauge = metrics.CONNECTIONS.labels(port)
        self._addresses = addresses
        self._connections: dict[ManagedConnection, str | None] = {}
        self._counts: Counter[str] = Counter()
        """open connections of each address that is counted"""
        self._refused: set[ManagedConnection] = set()
        """refused connections that are still open, so that their answer arrives"""
        self.is_ending = False

    @property
    def open_count(self) -> int:
        return len(self._connections)

    def find_client(self, transport: asyncio.BaseTransport, stated_ip: str | None = None) -> Client:
        """Return the client of a new connection: the one that its proxy states, else its other end."""
        if self._addresses is None:
            return UNKNOWN_CLIENT
        return self._addresses.find_peer(transport) if stated_ip is None else self._addresses.find_ip(stated_ip)

    def register(
        self, connection: ManagedConnection, transport: asyncio.BaseTransport, address: str | None = None
    ) -> bool:
        """Register a new connection of an address, None if it is not counted.

        Returns False if there are too many; a hundred at a time get a 503.

        The rest is aborted without an answer: a flood of connections must not use up the files of the process.
        """
        refusal = ""
        if len(self._connections) >= self._max_connections or self.is_ending:
            refusal = _TOO_MANY_AT_GATEWAY
        elif address is not None and self._counts[address] >= self.limits.connections_per_address:
            refusal = _TOO_MANY_OF_ADDRESS
        if refusal:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one, though not by inheritance
            self._refused.add(connection)
            if len(self._refused) > _MAX_LINGERING_REFUSED:
                stream.abort()
                return False
            body = problems.raw_problem(Overloaded(refusal), None).body
            stream.write(_TOO_MANY_RESPONSE % (len(body), body))
            close_after_client(stream, self.limits)
            return False
        self._connections[connection] = address
        if address is not None:
            self._counts[address] += 1
        return True

    def remove(self, connection: ManagedConnection) -> None:
        """Remove a closed connection, also a refused one."""
        self._refused.discard(connection)
        address = self._connections.pop(connection, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    async def enforce_timeouts_forever(self) -> None:
        """Enforce the timeouts of all connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for number, connection in enumerate(list(self._connections), 1):
                if connection in self._connections:  # it may have been closed during the sweep
                    try:
                        connection.enforce_timeouts(now)
                    except Exception:
                        _logger.exception("cannot enforce the timeouts of a connection")
                        connection.abort()
                if number % _CONNECTIONS_PER_ITERATION == 0:
                    await asyncio.sleep(0)
            self._gauge.set(len(self._connections) + len(self._refused))
            await self._clock.sleep(_TIMEOUT_SWEEP_INTERVAL_S)

    async def close_all(self, timeout_s: float) -> None:
        """Close each connection after its pending response; abort those that are open after `timeout_s`."""
        self.is_ending = True
        for connection in list(self._connections):
            try:
                connection.close_gracefully()
            except Exception:
                _logger.exception("cannot close a connection")
                connection.abort()
        deadline = self._clock.monotonic() + timeout_s
        while self._connections and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.02)
        for connection in [*self._connections, *self._refused]:
            connection.abort()

    def aiohttp_factory(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """Return the factory of connections on which aiohttp answers everything, for `create_server`."""
        server = runner.server
        assert server is not None
        return lambda: cast(asyncio.Protocol, AiohttpConnection(self, server))


class TrackedConnection:
    """The common part of all connections: registration, timeouts, closing.

    A client may close its direction and still read: its complete requests are answered. The connection of a client that
    does not read its responses is aborted.

    It has the methods of `asyncio.Protocol` without deriving from it: a class with a base that is not compiled is slow
    when compiled, and event loops only call the methods.
    """

    __slots__ = (
        "_admitted",
        "_connections",
        "_eof",
        "_limits",
        "_loop",
        "_since",
        "_transport",
        "_unread_since",
        "_unsent",
        "_writable",
        "client",
        "stated_ip",
    )

    def __init__(self, connections: ConnectionRegistry) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._unread_since = 0.0
        self._unsent = 0
        self._writable = True
        self._admitted = self._eof = False
        self.stated_ip: str | None = None
        """the client's address that a trusted proxy states, set before the connection is made"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.client = self._connections.find_client(transport, self.stated_ip)
        self._admitted = self._connections.register(self, transport, self.client.address)

    def abort(self) -> None:
        self._transport.abort()

    def close_gracefully(self) -> None:
        """Do nothing; each kind of connection closes in its own way."""

    def enforce_timeouts(self, now: float) -> None:
        """Abort the connection if its client does not read; close it gracefully if the process is to end."""
        if self._connections.is_ending:
            self.close_gracefully()
        if self._writable and not self._transport.is_closing():
            self._unread_since = 0.0
            return
        before, self._unsent = self._unsent, count_unsent(self._transport)
        if not self._unread_since or self._unsent < before:  # one with a slow line does read
            self._unread_since = now
        elif now - self._unread_since > self._limits.request_head_timeout_s:
            self._transport.abort()


class AiohttpConnection(TrackedConnection):
    """A connection on which aiohttp answers everything; we register it and enforce its timeouts."""

    __slots__ = ("_handler",)

    def __init__(self, connections: ConnectionRegistry, server: web.Server) -> None:
        super().__init__(connections)
        self._handler = AiohttpHandler(server, connections.limits, self._on_answered)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._admitted:
            self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self._handler.data_received(data)

    def eof_received(self) -> bool:
        self._eof = True
        return self._admitted and self._handler.has_pending_response

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        if self._admitted:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable = False
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        self._handler.resume_writing()

    def _on_answered(self, _stays_open: bool) -> None:
        self._since = self._loop.time()
        if self._connections.is_ending or (self._eof and not self._handler.has_queued_request):
            self._transport.close()

    def enforce_timeouts(self, now: float) -> None:
        super().enforce_timeouts(now)
        if (self._handler.is_idle and now - self._since > self._limits.request_head_timeout_s) or (
            self._eof and not self._handler.has_pending_response
        ):
            self._transport.close()

    def close_gracefully(self) -> None:
        if self._handler.is_idle:
            self._transport.close()
