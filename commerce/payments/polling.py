"""Times of the polls of payments and refunds: often at first, then less often."""

from __future__ import annotations

from datetime import datetime, timedelta

MIN_POLL_INTERVAL_MS, MAX_POLL_INTERVAL_MS = 1_000, 30_000


def poll_at(now: datetime, since: datetime, min_ms: float | None = None, max_ms: float | None = None) -> datetime:
    """Return now plus a quarter of the time since a moment, within limits; by default those of polls."""
    lower_ms, upper_ms = min_ms or MIN_POLL_INTERVAL_MS, max_ms or MAX_POLL_INTERVAL_MS
    return now + min(max((now - since) / 4, timedelta(milliseconds=lower_ms)), timedelta(milliseconds=upper_ms))
