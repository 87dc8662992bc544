"""What warehouses refuse."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoProductLogistics(NotFound):
    title = "Nobody knows where the product lies"
