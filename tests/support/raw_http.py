"""Bare connections: bytes out as they are, cut where the test wants them cut, and what comes back taken apart."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, cast

ClientEnd = Literal["half", "keep", "reset", "close"]
ORDER_MARK = b"{{order}}"
_LOCATION = re.compile(rb"location: /v1/orders/([0-9a-f-]{36})", re.IGNORECASE)
_PATIENCE_S = 20.0
_TURNS = 4


@dataclass(frozen=True)
class RequestScript:
    """What is said on one connection.

    Before each part but the first, the answers to the earlier ones are waited for, as many as `await_answers` says, and
    `{{order}}` stands for the last order that was answered. `cuts` are places in the whole of a part where one segment
    ends. Afterwards the client

    * `half`: closes its direction, and reads what still comes,
    * `keep`: leaves the connection open, and reads until `answers` came or the gateway closes,
    * `reset`, `close`: is gone.
    """

    parts: tuple[bytes, ...]
    cuts: tuple[tuple[int, ...], ...] = ()
    await_answers: tuple[int, ...] = ()
    end: ClientEnd = "half"
    answers: int = 0


@dataclass
class RawReply:
    """One response as it stood on the wire; header names in lower case, in the order they came."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for found, value in self.headers if found == name), None)


@dataclass
class RawReplies:
    """All that came on one connection. `rest` is what is no whole response."""

    answers: list[RawReply] = field(default_factory=list)
    rest: bytes = b""
    closed: bool = False


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = bytearray()
        self.closed = False
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._tell()

    def eof_received(self) -> bool:
        self.closed = True
        self._tell()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.closed = True
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def until(self, enough: Callable[[bytes], bool]) -> None:
        """Until it has heard enough or the other side is gone."""
        async with asyncio.timeout(_PATIENCE_S):
            while not self.closed and not enough(bytes(self.heard)):
                self._news = asyncio.get_running_loop().create_future()
                await self._news

    async def send(self, data: bytes, cuts: tuple[int, ...]) -> None:
        """Send a part in segments."""
        places = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
        for start, stop in pairwise(places):
            if self.closed:
                return
            self.transport.write(data[start:stop])
            if stop < len(data):
                await yield_to_loop()

    def reset(self) -> None:
        """Go as a client whose machine lost the connection: with RST."""
        found: socket.socket | None = self.transport.get_extra_info("socket")
        if found is not None and not self.closed:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


async def yield_to_loop() -> None:
    """Let the gateway, which is in this event loop, read what was sent: a turn to write, one to read, and two more."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def run_script(port: int, script: RequestScript, door: asyncio.Lock) -> RawReplies:
    """Hold one conversation and give what was heard. Raises `TimeoutError` if the gateway neither answers nor closes.

    The loop accepts one connection a turn, so clients come in one by one through `door`: the first segment of one that
    stands in a queue would be read together with its second.
    """
    async with door:
        transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
        await yield_to_loop()
    try:
        for number, part in enumerate(script.parts):
            if number:
                wanted = script.await_answers[number - 1]
                await client.until(lambda heard, wanted=wanted: len(split_replies(heard)[0]) >= wanted)  # type: ignore[misc]
            orders = _LOCATION.findall(bytes(client.heard))
            data = part.replace(ORDER_MARK, orders[-1]) if orders else part
            await client.send(data, script.cuts[number] if number < len(script.cuts) else ())
        if script.end == "half":
            with suppress(OSError, RuntimeError):  # the gateway may have closed it already
                transport.write_eof()
            await client.until(lambda heard: False)
        elif script.end == "keep":
            await client.until(lambda heard: len(split_replies(heard)[0]) >= script.answers)
        else:
            await yield_to_loop()
        answers, rest = split_replies(bytes(client.heard))
        return RawReplies(answers, rest, client.closed)
    finally:
        if script.end == "reset":
            client.reset()
        else:
            transport.close()


def split_replies(data: bytes) -> tuple[list[RawReply], bytes]:
    """The responses in these bytes, and what is left over."""
    found = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, status = lines[0].partition(" ")
        if not separator or not status[:3].isdigit():
            break
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        answer = RawReply(int(status[:3]), version, headers, b"")
        end = _body_end(answer, rest)
        if end < 0:
            break
        answer.body, data = rest[:end], rest[end:]
        found.append(answer)
    return found, data


def _body_end(answer: RawReply, rest: bytes) -> int:
    if answer.status < 200 or answer.status in (204, 304):
        return 0
    if answer.header("transfer-encoding") == "chunked":
        end = rest.find(b"0\r\n\r\n")
        return end + 5 if end >= 0 else -1
    length = int(answer.header("content-length") or 0)
    return length if len(rest) >= length else -1
