"""Closing a connection whose client may still be sending.

If unread bytes wait when a socket is closed, the kernel resets the connection, and the client loses the answer that it
has not read yet. RFC 9112, 9.6: close one direction, then read until the client closes the other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from config.settings import LimitSettings


def close_after_client(transport: asyncio.Transport, limits: LimitSettings) -> None:
    """Close after what was written; drop what still arrives, within limits of time and bytes."""
    owner = transport.get_protocol()
    if transport.is_closing() or isinstance(owner, _DroppingProtocol):
        return
    transport.set_protocol(_DroppingProtocol(transport, owner, limits))
    transport.write_eof()
    transport.resume_reading()


class _DroppingProtocol(asyncio.Protocol):
    """Drops what it receives, and closes at the end of it or at a limit. `owner` learns of the end."""

    def __init__(self, transport: asyncio.Transport, owner: asyncio.BaseProtocol, limits: LimitSettings) -> None:
        self._transport = transport
        self._owner = owner
        self._bytes_left = limits.linger_bytes
        self._timer = asyncio.get_running_loop().call_later(limits.linger_timeout_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._transport.abort()

    def eof_received(self) -> bool:
        return False  # the transport then closes itself

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()
        self._owner.connection_lost(exc if exc is None or isinstance(exc, Exception) else None)


class LingeringTransport:
    """A transport for aiohttp, whose `close` after an answer lets the client end first."""

    def __init__(self, transport: asyncio.Transport, limits: LimitSettings) -> None:
        self._transport = transport
        self._limits = limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        close_after_client(self._transport, self._limits)

    def is_closing(self) -> bool:
        return self._transport.is_closing() or isinstance(self._transport.get_protocol(), _DroppingProtocol)
