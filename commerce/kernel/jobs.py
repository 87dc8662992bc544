"""Jobs are rows: their number per claim, the lease of a claim, and the time of the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from commerce.kernel.clock import Clock


class JobSettings(Protocol):
    """The section `jobs` of the settings."""

    @property
    def backoff_initial_ms(self) -> int: ...
    @property
    def backoff_max_s(self) -> float: ...
    @property
    def lease_s(self) -> int: ...
    @property
    def rows_per_claim(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff from `initial_ms` to `max_s`, and the size and lease of claims."""

    initial_ms: int
    max_s: float
    lease_s: int
    rows_per_claim: int
    random: Callable[[], float] = random.random

    @classmethod
    def from_settings(cls, settings: JobSettings) -> RetryPolicy:
        return cls(settings.backoff_initial_ms, settings.backoff_max_s, settings.lease_s, settings.rows_per_claim)

    def delay_ms(self, attempt: int) -> int:
        """Return the delay after an attempt (counted from 1).

        The result is random between half of the backoff and all of it, so that jobs spread out.
        """
        backoff_ms = min(self.initial_ms * 2 ** min(attempt - 1, 30), self.max_s * 1000)
        return int(backoff_ms * (0.5 + self.random() / 2))


class RateLimiter:
    """A token bucket: `per_s` actions per second, with one second's worth saved up at most."""

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._tokens = per_s
        self._refilled_s = clock.monotonic()

    def available(self) -> int:
        """Return the number of actions that may be started now."""
        now = self._clock.monotonic()
        self._tokens = min(max(self._per_s, 1.0), self._tokens + (now - self._refilled_s) * self._per_s)
        self._refilled_s = now
        return int(self._tokens)

    def consume(self, count: int) -> None:
        self._tokens -= count
