"""Errors of the catalog."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoSuchVariant(NotFound):
    title = "There is no such variant"
