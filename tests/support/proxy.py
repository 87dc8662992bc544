"""A proxy in front of Redis or Postgres that can lose replies, delay them or refuse connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from lua.script import Script

_RESERVE = Script("reserve").sha.encode()


class Proxy:
    """Forwards bytes in both directions.

    * `lose_replies`: for so many replies to reserve.lua, await `when_lost` and close the connection instead.
    * `hold`: replies wait while this event is not set.
    * `refuse`: new connections are closed at once.
    * `target`: the socket that new connections lead to.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.lose_replies = 0
        self.lost = 0
        self.when_lost: Callable[[], Awaitable[object]] | None = None
        self.calls = 0
        self.refuse = False
        self.hold = asyncio.Event()
        self.hold.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        try:
            target_reader, target_writer = await asyncio.open_unix_connection(self.target)
        except OSError:  # the server is gone
            writer.close()
            return
        self._writers |= {writer, target_writer}
        state = {"evalsha": False}
        try:
            await asyncio.gather(
                self._forward(reader, target_writer, state, True), self._forward(target_reader, writer, state, False)
            )
        finally:
            for stream in (writer, target_writer):
                self._writers.discard(stream)
                stream.close()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool], to_target: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                if to_target:
                    is_reserve = _RESERVE in data
                    self.calls += is_reserve
                    state["evalsha"] |= is_reserve  # another command may follow before the reply
                else:
                    await self.hold.wait()
                    if state["evalsha"] and self.lose_replies:
                        self.lose_replies -= 1
                        self.lost += 1
                        if self.when_lost is not None:
                            await self.when_lost()
                        break
                    state["evalsha"] = False
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Refuse new connections and close all open ones."""
        self.refuse = True
        for writer in list(self._writers):
            writer.close()


@asynccontextmanager
async def open_redis_proxy(redis_url: str, directory: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy in front of Redis. Yields it and its URL."""
    path = directory / "proxy.sock"
    async with _serving(Proxy(redis_url.removeprefix("unix://")), path) as proxy:
        yield proxy, f"unix://{path}"


@asynccontextmanager
async def open_postgres_proxy(database_url: str, directory: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy in front of Postgres. Yields it and its URL, with the directory of its socket."""
    parts = urlsplit(database_url)
    query = dict(parse_qsl(parts.query))
    name = f".s.PGSQL.{query.get('port', parts.port or 5432)}"
    target, query["host"] = query["host"], str(directory)
    async with _serving(Proxy(f"{target}/{name}"), directory / name) as proxy:
        yield proxy, parts._replace(query=urlencode(query)).geturl()


@asynccontextmanager
async def _serving(proxy: Proxy, path: Path) -> AsyncIterator[Proxy]:
    server = await asyncio.start_unix_server(proxy.serve, path)
    try:
        yield proxy
    finally:
        server.close()
        proxy.hold.set()
        proxy.cut()
        await asyncio.sleep(0)
