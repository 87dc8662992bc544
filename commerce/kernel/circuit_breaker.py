"""A circuit breaker: calls to a system that fails repeatedly are stopped for a while, then tried once."""

from __future__ import annotations

from commerce.kernel.clock import Clock


class CircuitBreaker:
    """A breaker that opens after `failures` failures in a row, for `open_s` seconds.

    After that time the result of one trial call decides.
    """

    def __init__(self, clock: Clock, *, failures: int, open_s: float) -> None:
        self._clock = clock
        self._max_failures = failures
        self._open_s = open_s
        self._failures = 0
        self._open_until = float("-inf")

    @property
    def is_open(self) -> bool:
        """True while no call may be started."""
        return self._failures >= self._max_failures and self._clock.monotonic() < self._open_until

    @property
    def calls_allowed(self) -> int:
        """Number of calls that may be started now: 0 while open, 1 for the trial, otherwise unlimited."""
        if self._failures < self._max_failures:
            return 2**31
        return 0 if self.is_open else 1

    def record_success(self) -> None:
        self._failures = 0

    def record_failure(self) -> None:
        self._failures += 1
        if self._failures >= self._max_failures:
            self._open_until = self._clock.monotonic() + self._open_s
