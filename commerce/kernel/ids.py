"""Ids are UUIDv7 (RFC 9562, section 5.7): unique without a server, and in the order of their making."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import UUID

from commerce.kernel.clock import Clock, SystemClock

_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM_BITS = ~((0xF << 76) | (0x3 << 62)) & ((1 << 80) - 1)


class Ids:
    """Makes ids from a clock and a source of random bytes."""

    __slots__ = ("_clock", "_random")

    def __init__(self, clock: Clock | None = None, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock or SystemClock()
        self._random = random

    def new(self) -> UUID:
        """A new UUIDv7: 48 bits of milliseconds, 74 random bits."""
        random = int.from_bytes(self._random(10), "big") & _RANDOM_BITS
        return UUID(int=(self._clock.now_ms() << 80) | _VERSION_AND_VARIANT | random)


def made_ms(id_: UUID) -> int:
    """When a UUIDv7 was made, in milliseconds since 1970."""
    return id_.int >> 80
