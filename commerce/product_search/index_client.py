"""The index in memory as gateways use it: over a socket, with Postgres in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from commerce.product_search.errors import CursorOutdated
from commerce.product_search.index_wire import (
    MEMORY_INDEX_NAME,
    IndexAnswer,
    decode_answer,
    encode,
    read_frame,
    write_frame,
)
from commerce.product_search.model import SearchPage, SearchTerms, Suggestion
from commerce.product_search.product_index_port import ProductIndex

_MAX_IDLE, _RETRY_S = 8, 1.0
SearchedBy = Literal["memory", "postgres_words", "postgres_away"]
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RemoteProductIndex:
    """Searches in the index of another process, and in `fallback` what it leaves or cannot answer.

    An index that does not answer within `timeout_ms` is asked again after a second. `note` gets who has answered.
    """

    def __init__(self, path: Path, fallback: ProductIndex, timeout_ms: int, note: Callable[[SearchedBy], None]) -> None:
        self._path = path
        self._fallback = fallback
        self._timeout_s = timeout_ms / 1_000
        self._note = note
        self._idle: list[_Connection] = []
        self._away_until = 0.0

    async def search(self, terms: SearchTerms) -> SearchPage:
        """Find products, as the port says."""
        is_continued = terms.after is not None and terms.sort == "relevance" and bool(terms.text)
        if is_continued and terms.after is not None and terms.after.index_name != MEMORY_INDEX_NAME:
            self._note("postgres_words")  # its first page is of Postgres
            return await self._fallback.search(terms)
        answer = await self._query_index(terms)
        if answer is not None and answer.page is not None:
            self._note("memory")
            return answer.page
        if answer is not None and answer.kind == "cursor_outdated":
            raise CursorOutdated("cannot continue the list: the cursor is of another index; read the first page")
        self._note("postgres_words" if answer is not None and answer.kind == "left" else "postgres_away")
        return await self._fallback.search(terms)

    async def suggest(self, text: str, language: str, limit: int) -> Sequence[Suggestion]:
        """Complete the beginning of a name in Postgres."""
        return await self._fallback.suggest(text, language, limit)

    def close(self) -> None:
        """Close the connections; nobody may search any more."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _query_index(self, terms: SearchTerms) -> IndexAnswer | None:
        """Return the answer of the index, None if it is unavailable."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return None
        content = encode(terms)
        for is_last in (False, True):
            is_new = not self._idle
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._exchange(content)
            except (TimeoutError, msgspec.DecodeError):
                break
            except (OSError, EOFError):
                # An idle connection may be of a process that has ended: all of them are.
                self.close()
                if is_new or is_last:
                    break
        self._away_until = loop.time() + _RETRY_S
        return None

    async def _exchange(self, content: bytes) -> IndexAnswer:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_unix_connection(self._path)
        is_whole = False
        try:
            write_frame(writer, content)
            await writer.drain()
            answer = decode_answer(await read_frame(reader))
            is_whole = True
        finally:
            if is_whole and len(self._idle) < _MAX_IDLE:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return answer
