"""Problems of policies of deadlines."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoSuchDeadlinePolicy(NotFound):
    title = "There is no such policy of deadlines"
