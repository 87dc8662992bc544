"""Closing a connection whose client may still be sending.

If unread bytes wait when a socket is closed, the kernel resets the connection, and the client loses the answer that it
has not read yet. RFC 9112, 9.6: close one direction, then read until the client closes the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from typing import Any

from config.settings import LimitSettings

_CHECKS_PER_TIMEOUT = 4


def close_after_client(transport: asyncio.Transport, limits: LimitSettings) -> None:
    """Close after what was written; drop what still arrives, within limits of time and bytes."""
    owner = transport.get_protocol()
    if transport.is_closing() or isinstance(owner, _DroppingProtocol):
        return
    transport.set_protocol(_DroppingProtocol(transport, owner, limits))
    transport.write_eof()
    transport.resume_reading()


def count_unsent(transport: asyncio.Transport) -> int:
    """Count the bytes that the client has not received: those of the transport, and those in the kernel.

    The kernel takes megabytes at once, and the transport's own count then stands still while the client reads.
    """
    unsent = transport.get_write_buffer_size()
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError, AttributeError):  # it is closed
        return unsent
    return unsent + int.from_bytes(queued, sys.byteorder)


class _DroppingProtocol(asyncio.Protocol):
    """Drops what it receives, and closes at the end of it or at a limit. `owner` learns of the end.

    The time begins again whenever the client has received more of the answer: one with a slow line gets all of it.
    """

    def __init__(self, transport: asyncio.Transport, owner: asyncio.BaseProtocol, limits: LimitSettings) -> None:
        self._transport = transport
        self._owner = owner
        self._bytes_left = limits.linger_bytes
        self._loop = asyncio.get_running_loop()
        self._timeout_s = limits.linger_timeout_s
        self._unsent = count_unsent(transport)
        self._abort_at = self._loop.time() + self._timeout_s
        self._check_later()

    def _check_later(self) -> None:
        self._timer = self._loop.call_later(self._timeout_s / _CHECKS_PER_TIMEOUT, self._check)

    def _check(self) -> None:
        now, unsent = self._loop.time(), count_unsent(self._transport)
        if unsent < self._unsent:
            self._unsent, self._abort_at = unsent, now + self._timeout_s
        if now >= self._abort_at:
            self._transport.abort()
        else:
            self._check_later()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

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
