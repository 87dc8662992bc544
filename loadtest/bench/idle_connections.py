"""A crowd at the door: a thousand connections that buy nothing, held by few calls of the system.

A task and a timer for each of them took 6% of a core and a thousand wake-ups a second, which on a machine of two cores
cost the shoppers more than what the server did for the crowd.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CROWD = 1_000
_ARRIVING = b"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
_TICKS_PER_S = 100
_LOOK_EVERY_S = 10.0  # whether those who send nothing are still connected; who sends is told
_SETTLE_S = 1.0


class _Stranger:
    """One of them. Whoever was cut off comes back when its turn comes."""

    def __init__(self, port: int, *, sending: bool) -> None:
        self._port = port
        self._sending = sending
        self._socket: socket.socket | None = None

    def act(self) -> None:
        """Send a byte more of a head without end, or look whether the server has hung up."""
        try:
            if self._socket is None:
                self._arrive()
            elif self._sending:
                self._socket.send(b"x")
            elif not self._socket.recv(1024):
                self.leave()
        except BlockingIOError:
            pass  # still connected
        except OSError:
            self.leave()

    def _arrive(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self._socket.setblocking(False)
        if self._sending:
            self._socket.send(_ARRIVING)

    def leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@asynccontextmanager
async def open_idle_connections(url: str, *, sending: bool) -> AsyncIterator[None]:
    """A thousand connections that have sent nothing, or that send a head one byte a second without end."""
    strangers = [_Stranger(urlsplit(url).port or 80, sending=sending) for _ in range(CROWD)]
    for number, stranger in enumerate(strangers):
        stranger.act()
        if number % 50 == 0:
            await asyncio.sleep(0.01)  # no more than the server's queue of new connections takes
    acting = asyncio.create_task(_act(strangers, 1.0 if sending else _LOOK_EVERY_S))
    try:
        await asyncio.sleep(_SETTLE_S)
        yield
    finally:
        acting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await acting
        for stranger in strangers:
            stranger.leave()
        await asyncio.sleep(_SETTLE_S)  # the server parts with them before anything else is measured


async def _act(strangers: list[_Stranger], every_s: float) -> None:
    """Each once in that time, a few at a time: they do not act in step. Late ones are made up for."""
    loop = asyncio.get_running_loop()
    begun, acted = loop.time(), 0
    while True:
        due = int((loop.time() - begun) / every_s * len(strangers))
        while acted < due:
            strangers[acted % len(strangers)].act()
            acted += 1
        await asyncio.sleep(1 / _TICKS_PER_S)
