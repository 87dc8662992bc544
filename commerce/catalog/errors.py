"""What the catalogue refuses."""

from __future__ import annotations

from commerce.kernel.errors import Invalid, NotFound


class NoSuchProduct(NotFound):
    title = "There is no such product"


class UnreadableCsv(Invalid):
    title = "The file cannot be imported"
