"""Dead letters for staff."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec


class DeadLetter(msgspec.Struct, frozen=True):
    """An accepted order that could not be stored. `order` is set only where a single dead letter is read.

    With `stock_lost` it has lost its units: Redis was wiped while a writer held the order, and a retry reacquires them.
    """

    order_id: UUID
    sale_id: str
    user_id: str | None
    units: dict[str, int] | None
    error: str
    status: Literal["held", "retried", "discarded"]
    stock_lost: bool
    accepted_at: datetime
    died_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    order: dict[str, Any] | None = None
