"""A thousand connections that order nothing, held with few system calls.

A task and a timer per connection took 6% of a core and a thousand wake-ups per second. On a machine of two cores that
cost the customers more than the server's work for these connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CONNECTIONS = 1_000
_REQUEST_START = b"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
_TICKS_PER_S = 100
_CHECK_INTERVAL_S = 10.0  # for silent connections; a sending one gets an error when it is closed
_SEND_INTERVAL_S = 1.0
_PAUSE_S = 1.0


class _IdleConnection:
    """One connection; connects again on the next step after the server closed it."""

    def __init__(self, port: int, source: str, *, sending: bool) -> None:
        self._port = port
        self._source = source
        self._sending = sending
        self._socket: socket.socket | None = None

    def step(self) -> None:
        """Send one more byte of an endless head, or check whether the server has closed the connection."""
        try:
            if self._socket is None:
                self._connect()
            elif self._sending:
                self._socket.send(b"x")
            elif not self._socket.recv(1024):
                self.close()
        except BlockingIOError:
            pass  # still connected
        except OSError:
            self.close()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=5, source_address=(self._source, 0))
        self._socket.setblocking(False)
        if self._sending:
            self._socket.send(_REQUEST_START)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@asynccontextmanager
async def open_idle_connections(
    url: str, *, sending: bool, sources: Sequence[str] = ("127.0.0.1",)
) -> AsyncIterator[None]:
    """Hold a thousand connections that send nothing, or an endless head at one byte per second.

    `sources` are the addresses of this machine that they come from.
    """
    port = urlsplit(url).port or 80
    connections = [
        _IdleConnection(port, sources[number % len(sources)], sending=sending) for number in range(CONNECTIONS)
    ]
    for number, connection in enumerate(connections):
        connection.step()
        if number % 50 == 0:
            await asyncio.sleep(0.01)  # not more than the server's accept queue takes
    stepping = asyncio.create_task(_step_forever(connections, _SEND_INTERVAL_S if sending else _CHECK_INTERVAL_S))
    try:
        await asyncio.sleep(_PAUSE_S)
        yield
    finally:
        stepping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stepping
        for connection in connections:
            connection.close()
        await asyncio.sleep(_PAUSE_S)  # the server closes them before anything else is measured


async def _step_forever(connections: list[_IdleConnection], interval_s: float) -> None:
    """Step each connection once per interval, evenly spread; delayed steps are made up for."""
    loop = asyncio.get_running_loop()
    started_at, steps = loop.time(), 0
    while True:
        due = int((loop.time() - started_at) / interval_s * len(connections))
        while steps < due:
            connections[steps % len(connections)].step()
            steps += 1
        await asyncio.sleep(1 / _TICKS_PER_S)
