"""Ids are UUIDv7 (RFC 9562, section 5.7): unique without a server and ordered by creation time."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import UUID

from asyncpg.pgproto import pgproto

from commerce.kernel.clock import Clock, SystemClock

_RANDOM_BYTES = 10
_POOL_IDS = 256
# Of the ten bytes after the time, the first begins with the version (7) and the third with the variant (binary 10).
_RANDOM_MASK = int.from_bytes((b"\x0f\xff\x3f" + b"\xff" * 7) * _POOL_IDS)
_MARKER_BITS = int.from_bytes((b"\x70\x00\x80" + b"\x00" * 7) * _POOL_IDS)


class IdGenerator:
    """Generates ids from a clock and a source of random bytes, which is read for 256 ids at a time."""

    __slots__ = ("_clock", "_left", "_pool", "_random")

    def __init__(self, clock: Clock | None = None, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._pool, self._left = b"", 0

    def new(self) -> UUID:
        """Return a new UUIDv7: 48 bits of milliseconds, 74 random bits."""
        if not self._left:
            self._fill()
        self._left -= 1
        start = self._left * _RANDOM_BYTES
        # asyncpg's UUID behaves as Python's and is implemented in C.
        return pgproto.UUID(self._clock.now_ms().to_bytes(6) + self._pool[start : start + _RANDOM_BYTES])

    def _fill(self) -> None:
        size = _RANDOM_BYTES * _POOL_IDS
        random = int.from_bytes(self._random(size)) & _RANDOM_MASK | _MARKER_BITS
        self._pool, self._left = random.to_bytes(size), _POOL_IDS


def parse_uuid_hex(text: object) -> UUID | None:
    """Return the id whose `hex` is exactly `text`, else None.

    Stricter than `UUID`, which also reads capitals, braces, dashes and `urn:uuid:`."""
    try:
        id_ = UUID(hex=text) if isinstance(text, str) else None
    except ValueError:
        return None
    return id_ if id_ is not None and id_.hex == text else None


def created_ms(id_: UUID) -> int:
    """Return the creation time of a UUIDv7 in milliseconds since 1970."""
    return id_.int >> 80


def first_id(ms: int) -> UUID:
    """Return the lowest id of a millisecond since 1970: older UUIDv7 are less, later ones are not."""
    return UUID(int=ms << 80)
