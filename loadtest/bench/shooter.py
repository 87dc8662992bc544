"""A load generator: bare connections that send prepared bytes, one request at a time each, and check the answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

_TIMEOUT_S = 30.0


@dataclass
class Shots:
    """What a load has brought: answers by status, and how long each took in seconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.statuses.values())

    def percentile(self, share: float) -> float:
        """The latency that this share of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Gun(asyncio.Protocol):
    """One connection. Answers have a Content-Length; that is all of HTTP it knows."""

    def __init__(self, requests: Iterator[bytes], shots: Shots, done: Callable[[], None], until: float) -> None:
        self._requests = requests
        self._shots = shots
        self._done = done
        self._until = until
        self._buffer = b""
        self._need = -1
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def _next(self) -> None:
        now = perf_counter()
        request = next(self._requests, None) if now < self._until else None
        if request is None:
            self._transport.close()
            return
        self._sent_at = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if self._need < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            head = buffer[:end].lower()
            at = head.find(b"content-length:")
            self._need = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            self._status = int(buffer[9:12])
        if len(buffer) < self._need:
            self._buffer = buffer
            return
        self._shots.statuses[self._status] += 1
        self._shots.latencies.append(perf_counter() - self._sent_at)
        self._buffer, self._need = b"", -1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()


async def shoot(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Shots:
    """Send requests over so many connections until they or the time run out."""
    loop = asyncio.get_running_loop()
    shots, open_, over = Shots(), connections, asyncio.Event()

    def done() -> None:
        nonlocal open_
        open_ -= 1
        if open_ == 0:
            over.set()

    started = perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Gun(requests, shots, done, started + seconds), "127.0.0.1", port)
    await asyncio.wait_for(over.wait(), seconds + _TIMEOUT_S)
    shots.seconds = perf_counter() - started
    return shots
