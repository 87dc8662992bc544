"""A Redis that answers late: `python -m loadtest.bench.late_redis SOCKET TARGET MILLISECONDS`.

It listens on one Unix socket and forwards to another. Replies wait, in their sequence; nothing is slowed down.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast

import uvloop


class _Pipe(asyncio.Protocol):
    """One direction of a connection: what arrives here is written to `target`, late."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._held: deque[bytes] = deque()
        self.target: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        self._held.append(data)
        self._loop.call_later(self._delay_s, self._forward)

    def _forward(self) -> None:
        data = self._held.popleft()
        if self.target is not None and not self.target.is_closing():
            self.target.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.target is not None:
            self.target.close()


class _Client(_Pipe):
    """Connection of a client, whose requests are not late."""

    def __init__(self, path: str, delay_s: float) -> None:
        super().__init__(0)
        self._path = path
        self._replies = _Pipe(delay_s)
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._replies.target = cast(asyncio.Transport, transport)
        self._connecting = self._loop.create_task(self._connect(self._replies.target))

    async def _connect(self, client: asyncio.Transport) -> None:
        try:
            self.target, _ = await self._loop.create_unix_connection(lambda: self._replies, self._path)
        except OSError:
            client.abort()
            return
        while self._held:
            self.target.write(self._held.popleft())

    def data_received(self, data: bytes) -> None:
        if self.target is None:
            self._held.append(data)
        else:
            self.target.write(data)


async def forward(path: str, target: str, delay_s: float) -> None:
    """Forward every connection until killed."""
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Client(target, delay_s), path, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(forward(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1e3))
