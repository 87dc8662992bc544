"""Messages of gateways and the index in memory over a Unix socket: a length, then MessagePack."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Literal

import msgspec

from commerce.kernel.errors import NotReady
from commerce.product_search.model import SearchPage, SearchTerms

MEMORY_INDEX_NAME = "memory"
"""in positions of lists that are sorted by its scores"""
MAX_FRAME_BYTES = 4_000_000
"""bits of thirty million products, or a page of a hundred"""
_MAX_PATH_BYTES = 100
_LENGTH = struct.Struct(">I")
AnswerKind = Literal["found", "left", "not_ready", "cursor_outdated"]
"""`left`: a word may be mistyped, which Postgres finds out"""


class IndexAnswer(msgspec.Struct, frozen=True):
    """The answer to a search; only `found` has a page."""

    kind: AnswerKind
    page: SearchPage | None = None


encode = msgspec.msgpack.Encoder().encode
decode_terms = msgspec.msgpack.Decoder(SearchTerms).decode
decode_answer = msgspec.msgpack.Decoder(IndexAnswer).decode


class BadFrame(ConnectionError):
    """A length that no frame has."""


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read a frame. Raises `BadFrame`, or `EOFError` at the end of the stream."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {length} bytes, more than {MAX_FRAME_BYTES}")
    return await reader.readexactly(length)


def write_frame(writer: asyncio.StreamWriter, content: bytes) -> None:
    """Write a frame, which `drain` sends."""
    writer.write(_LENGTH.pack(len(content)) + content)


def check_socket_path(path: Path) -> None:
    """Raise `NotReady` if a path is too long for a Unix socket."""
    if len(str(path).encode()) > _MAX_PATH_BYTES:
        raise NotReady(f"cannot use {path} for a Unix socket: it is too long; set catalog.index_socket")
