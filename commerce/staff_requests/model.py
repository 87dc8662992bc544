"""Answers to staff requests."""

from __future__ import annotations

from typing import NamedTuple


class StaffAnswer(NamedTuple):
    """A favourable answer to a staff request, as it is sent."""

    status: int
    content_type: str
    location: str | None
    body: bytes
