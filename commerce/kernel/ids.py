"""Ids are UUIDv7 (RFC 9562, section 5.7): unique without a server, and in the order of their making."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import UUID

from asyncpg.pgproto import pgproto

from commerce.kernel.clock import Clock, SystemClock

_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM_BITS = ~((0xF << 76) | (0x3 << 62)) & ((1 << 80) - 1)
_RANDOM_BYTES = 10
_POOL_IDS = 256


class Ids:
    """Makes ids from a clock and a source of random bytes, which is asked for many at a time."""

    __slots__ = ("_clock", "_left", "_pool", "_random")

    def __init__(self, clock: Clock | None = None, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._pool, self._left = b"", 0

    def new(self) -> UUID:
        """A new UUIDv7: 48 bits of milliseconds, 74 random bits."""
        if not self._left:
            self._pool, self._left = self._random(_RANDOM_BYTES * _POOL_IDS), _POOL_IDS
        self._left -= 1
        at = self._left * _RANDOM_BYTES
        random = int.from_bytes(self._pool[at : at + _RANDOM_BYTES], "big") & _RANDOM_BITS
        made = (self._clock.now_ms() << 80) | _VERSION_AND_VARIANT | random
        # asyncpg's UUID is Python's, made and shown in C.
        return pgproto.UUID(made.to_bytes(16, "big"))


def made_ms(id_: UUID) -> int:
    """When a UUIDv7 was made, in milliseconds since 1970."""
    return id_.int >> 80
