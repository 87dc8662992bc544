"""Serves an index in memory to the gateways of this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from commerce.product_search.errors import CursorOutdated
from commerce.product_search.index_wire import (
    IndexAnswer,
    check_socket_path,
    decode_terms,
    encode,
    read_frame,
    write_frame,
)
from commerce.product_search.model import SearchTerms

if TYPE_CHECKING:
    from commerce.product_search.memory_index import MemoryProductIndex  # needs numpy

_logger = logging.getLogger(__name__)
_MAX_CONNECTIONS, _READ_TIMEOUT_S = 256, 5.0


class IndexServer:
    """Answers searches one after the other. `find_index` returns None as long as there is no whole index."""

    def __init__(self, find_index: Callable[[], MemoryProductIndex | None]) -> None:
        self._find_index = find_index
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listen(self, path: Path) -> AsyncIterator[None]:
        """Serve on a socket that only this user can open, in the place of one that an ended process has left.

        Raises `NotReady` if the path is too long."""
        check_socket_path(path)
        if path.is_socket():
            path.unlink()
        server = await asyncio.start_unix_server(self._accept, path)
        path.chmod(0o600)
        try:
            yield
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            path.unlink(missing_ok=True)

    def answer(self, terms: SearchTerms) -> IndexAnswer:
        """Answer a search."""
        index = self._find_index()
        if index is None:
            return IndexAnswer("not_ready")
        try:
            page = index.search(terms)
        except CursorOutdated:
            return IndexAnswer("cursor_outdated")
        return IndexAnswer("left") if page is None else IndexAnswer("found", page)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            with suppress(ConnectionError, EOFError, TimeoutError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await read_frame(reader)
            try:
                terms = decode_terms(frame)
            except msgspec.DecodeError as error:
                _logger.warning("cannot read a search; the connection is closed", extra={"reason": str(error)})
                return
            write_frame(writer, encode(self.answer(terms)))
            async with asyncio.timeout(_READ_TIMEOUT_S):  # who does not read its answer loses the connection
                await writer.drain()
