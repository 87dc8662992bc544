"""Idempotency keys of accepted orders, whose repeats come before new orders.

A table of one byte per slot: the slot and the byte follow from the hash of token and key. The token stands for its
user: it is known before it is verified, and who repeats an order has no other one yet. A newer key takes the place of
an older one. An unknown key is taken for a known one at most once in 255 times, which does no harm: its order is
admitted though the gateway is overloaded.

Gateways of one machine share the table in `metrics_dir` if they hash alike, that is, run with the same secret
PYTHONHASHSEED. Without either, each has its own, and a repeat at another gateway counts as a new order.
"""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path

_logger = logging.getLogger(__name__)
FILE_NAME = "known-keys"
_SLOTS = 1 << 22
_SLOT_MASK = _SLOTS - 1
_SEED_BYTES = 8
_SEED_PROBE = "floodgate known keys"


class KnownKeys:
    """Accepted keys and their tokens: of this process, or of all that share a directory."""

    def __init__(self, directory: Path | None = None) -> None:
        shared = _open_shared(directory / FILE_NAME) if directory is not None else None
        self._table: bytearray | mmap.mmap = bytearray(_SLOTS) if shared is None else shared

    def add(self, authorization: bytes | None, key: bytes | None) -> None:
        """Remember the Authorization and Idempotency-Key of an accepted order."""
        value = hash((authorization, key))
        self._table[value & _SLOT_MASK] = (value >> 24) % 255 + 1

    def has(self, authorization: bytes, key: bytes) -> bool:
        """Tell whether an order with these headers was probably accepted."""
        value = hash((authorization, key))
        return self._table[value & _SLOT_MASK] == (value >> 24) % 255 + 1


def _open_shared(path: Path) -> mmap.mmap | None:
    """Map the table of all gateways. Returns None if it cannot be shared."""
    seed = hash(_SEED_PROBE).to_bytes(_SEED_BYTES, "big", signed=True)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _SLOTS + _SEED_BYTES)  # on a full disk a later write would end the process
            table = mmap.mmap(file, _SLOTS + _SEED_BYTES)
        finally:
            os.close(file)
    except OSError as error:
        _logger.warning("gateways do not share known keys", extra={"path": str(path), "reason": str(error)})
        return None
    stored = table[_SLOTS:]
    if stored == bytes(_SEED_BYTES):
        table[_SLOTS:] = seed
    elif stored != seed:
        if os.environ.get("PYTHONHASHSEED", "random") == "random":
            table.close()
            _logger.info("gateways do not share known keys: set the same PYTHONHASHSEED", extra={"path": str(path)})
            return None
        # The file is from before this seed was set. A gateway that still runs with another one finds its keys no more.
        _logger.warning("known keys are forgotten: PYTHONHASHSEED is another one now", extra={"path": str(path)})
        table[:] = bytes(_SLOTS) + seed
    return table
