"""Idempotency keys of accepted orders, whose repeats come before new orders."""

from __future__ import annotations

_MAX_KEYS = 200_000


class KnownKeys:
    """Hashes of the last 100,000 to 200,000 accepted users and keys."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._earlier: set[int] = set()

    def add(self, user_id: str, key: str) -> None:
        if len(self._recent) >= _MAX_KEYS // 2:
            self._earlier, self._recent = self._recent, set()
        self._recent.add(hash((user_id, key)))

    def has(self, user_id: str, key: str) -> bool:
        """Tell whether the user's key is known; one in 10^14 unknown ones seems to be."""
        value = hash((user_id, key))
        return value in self._recent or value in self._earlier
