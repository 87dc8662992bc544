"""Problems of working calendars."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoSuchCalendar(NotFound):
    title = "There is no such working calendar"
