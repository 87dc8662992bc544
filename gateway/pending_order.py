"""One order on its way from the gateway through the intake to its outcome."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from commerce.kernel.errors import ProblemError
from lua import Reservation, ReserveResult

Outcome = ReserveResult | ProblemError
"""Redis's decision, or the reason why there is none: `Overloaded`, `NotReady` or `OutcomeUnknown`."""


class PendingOrder(msgspec.Struct, eq=False):
    """An order whose outcome is set at most once.

    `on_resolved` is called with the outcome and then dropped, so it cannot be called again. A struct: it is created per
    order, and in C.
    """

    reservation: Reservation
    on_resolved: Callable[[Outcome], None] | None
    deadline: float = 0.0
    """time of the event loop until which the order may wait for an outcome; set by `OrderIntake.submit`"""

    @property
    def is_resolved(self) -> bool:
        return self.on_resolved is None

    def resolve(self, outcome: Outcome) -> bool:
        """Set the outcome. Returns False and does nothing if there is one already."""
        on_resolved = self.on_resolved
        if on_resolved is None:
            return False
        self.on_resolved = None
        on_resolved(outcome)
        return True
