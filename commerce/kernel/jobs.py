"""The row is the job: how many are claimed at once, for how long, and when a job is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits double from `first_ms` to at most `max_s`; a claim of `batch` rows lasts `lease_s`."""

    first_ms: int
    max_s: float
    lease_s: int
    batch: int
    random: Callable[[], float] = random.random

    def delay_ms(self, attempt: int) -> int:
        """After the given attempt (from 1): between half of the full wait and all of it, so that jobs spread out."""
        full = min(self.first_ms * 2 ** min(attempt - 1, 30), self.max_s * 1000)
        return int(full * (0.5 + self.random() / 2))
