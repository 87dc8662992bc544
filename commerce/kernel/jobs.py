"""The row is the job: how many are claimed at once, for how long, and when a job is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from commerce.kernel.clock import Clock


class JobSettings(Protocol):
    """The part `driver` of the settings."""

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
    """Waits double from `first_ms` to at most `max_s`; a claim of `batch` rows lasts `lease_s`."""

    first_ms: int
    max_s: float
    lease_s: int
    batch: int
    random: Callable[[], float] = random.random

    @classmethod
    def from_settings(cls, driver: JobSettings) -> RetryPolicy:
        """As the settings say."""
        return cls(driver.backoff_initial_ms, driver.backoff_max_s, driver.lease_s, driver.rows_per_claim)

    def delay_ms(self, attempt: int) -> int:
        """After the given attempt (from 1): between half of the full wait and all of it, so that jobs spread out."""
        full = min(self.first_ms * 2 ** min(attempt - 1, 30), self.max_s * 1000)
        return int(full * (0.5 + self.random() / 2))


class RateLimiter:
    """So many a second and no more, saved up for a second at most."""

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._saved = per_s
        self._then = clock.monotonic()

    def available(self) -> int:
        """How many may be begun now."""
        now = self._clock.monotonic()
        self._saved = min(max(self._per_s, 1.0), self._saved + (now - self._then) * self._per_s)
        self._then = now
        return int(self._saved)

    def consume(self, count: int) -> None:
        self._saved -= count
