"""Refusals of searches."""

from __future__ import annotations

from commerce.kernel.errors import Invalid


class SearchTooWide(Invalid):
    """No index can answer the search; `detail` says what to add."""
