"""Refusals of searches."""

from __future__ import annotations

from commerce.kernel.errors import Invalid


class CursorOutdated(Invalid):
    """The cursor is of another search, or of an index that is not used now."""

    code = "cursor_outdated"
    title = "The list cannot be continued here; read it from its first page"
