"""A circuit breaker: who does not answer is left alone for a while, then tried once."""

from __future__ import annotations

from commerce.kernel.clock import Clock


class CircuitBreaker:
    """Opens after so many failures in a row, for so many seconds; then lets one try through, which decides."""

    def __init__(self, clock: Clock, *, failures: int, open_s: float) -> None:
        self._clock = clock
        self._most = failures
        self._open_s = open_s
        self._failures = 0
        self._until = float("-inf")

    @property
    def open(self) -> bool:
        """Whether nobody should call now."""
        return self._failures >= self._most and self._clock.monotonic() < self._until

    @property
    def calls_allowed(self) -> int:
        """How many calls may be begun now: none while open, one to try, else any number."""
        if self._failures < self._most:
            return 2**31
        return 0 if self.open else 1

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._most:
            self._until = self._clock.monotonic() + self._open_s
