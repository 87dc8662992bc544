"""Connections that send scripted bytes in chosen segments and split what they receive into replies."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal, cast

ClientEnd = Literal["half", "keep", "reset", "close"]
ORDER_MARK = b"{{order}}"
_LOCATION = re.compile(rb"location: /v1/orders/([0-9a-f-]{36})", re.IGNORECASE)
_TIMEOUT_S = 20.0
_ITERATIONS = 4


@dataclass(frozen=True)
class RequestScript:
    """Bytes to send on one connection.

    Before each part but the first, the client waits for as many replies in all as `await_answers` says. In these parts
    `{{order}}` is replaced by the id of the last accepted order. `cuts` are offsets in a part at which a segment ends.
    `end` says what the client does after the last part:

    * `half`: closes its direction and reads until the gateway closes,
    * `keep`: leaves the connection open and reads until `answers` replies came or the gateway closes,
    * `reset`, `close`: resets or closes the connection without reading.
    """

    parts: tuple[bytes, ...]
    cuts: tuple[tuple[int, ...], ...] = ()
    await_answers: tuple[int, ...] = ()
    end: ClientEnd = "half"
    answers: int = 0


@dataclass
class RawReply:
    """One response with its headers in the order received, their names in lower case."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for header, value in self.headers if header == name), None)


@dataclass
class RawReplies:
    """All bytes received on one connection. `incomplete` follows the last complete response."""

    answers: list[RawReply] = field(default_factory=list)
    incomplete: bytes = b""
    closed: bool = False


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self._progress: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._wake()

    def eof_received(self) -> bool:
        self.closed = True
        self._wake()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    async def wait_until(self, is_enough: Callable[[bytes], bool]) -> None:
        """Receive until the bytes are enough or the gateway closes. Raises `TimeoutError`."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not self.closed and not is_enough(bytes(self.received)):
                self._progress = asyncio.get_running_loop().create_future()
                await self._progress

    async def send(self, data: bytes, cuts: tuple[int, ...]) -> None:
        """Send a part in segments."""
        offsets = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
        for start, stop in pairwise(offsets):
            if self.closed:
                return
            self.transport.write(data[start:stop])
            if stop < len(data):
                await yield_to_loop()

    def reset(self) -> None:
        """Close the connection with RST, as a client whose machine lost it."""
        connection: socket.socket | None = self.transport.get_extra_info("socket")
        if connection is not None and not self.closed:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


async def yield_to_loop() -> None:
    """Let the gateway, which runs in this event loop, read the sent bytes.

    One iteration writes, one reads, two are in reserve."""
    for _ in range(_ITERATIONS):
        await asyncio.sleep(0)


async def run_script(port: int, script: RequestScript, accept_lock: asyncio.Lock) -> RawReplies:
    """Run one script. Raises `TimeoutError` if the gateway neither answers nor closes.

    The event loop accepts one connection per iteration. `accept_lock` keeps connections out of the accept queue, where
    the first segment would be read together with the second.
    """
    async with accept_lock:
        transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
        await yield_to_loop()
    try:
        for number, part in enumerate(script.parts):
            if number:
                await client.wait_until(partial(_has_replies, script.await_answers[number - 1]))
            orders = _LOCATION.findall(bytes(client.received))
            data = part.replace(ORDER_MARK, orders[-1]) if orders else part
            await client.send(data, script.cuts[number] if number < len(script.cuts) else ())
        if script.end == "half":
            with suppress(OSError, RuntimeError):  # the gateway may have closed it already
                transport.write_eof()
            await client.wait_until(lambda received: False)
        elif script.end == "keep":
            await client.wait_until(partial(_has_replies, script.answers))
        else:
            await yield_to_loop()
        answers, incomplete = split_replies(bytes(client.received))
        return RawReplies(answers, incomplete, client.closed)
    finally:
        if script.end == "reset":
            client.reset()
        else:
            transport.close()


def _has_replies(count: int, received: bytes) -> bool:
    return len(split_replies(received)[0]) >= count


def split_replies(data: bytes) -> tuple[list[RawReply], bytes]:
    """Split received bytes into complete responses and the bytes after the last of them."""
    replies = []
    while data:
        head, separator, remainder = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, status = lines[0].partition(" ")
        if not separator or not status[:3].isdigit():
            break
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        reply = RawReply(int(status[:3]), version, headers, b"")
        end = _body_end(reply, remainder)
        if end < 0:
            break
        reply.body, data = remainder[:end], remainder[end:]
        replies.append(reply)
    return replies, data


def _body_end(reply: RawReply, remainder: bytes) -> int:
    """Return the length of a body, or -1 if it is incomplete."""
    if reply.status < 200 or reply.status in (204, 304):
        return 0
    if reply.header("transfer-encoding") == "chunked":
        end = remainder.find(b"0\r\n\r\n")
        return end + 5 if end >= 0 else -1
    length = int(reply.header("content-length") or 0)
    return length if len(remainder) >= length else -1
