"""Refusals about the stock of warehouses."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchStock(NotFound):
    title = "No warehouse keeps this"


class NotEnoughStock(Conflict):
    """Fewer units are on hand, or more of them are allotted to sales, than the movement allows."""

    code = "not_enough_stock"
    title = "The warehouse has too few units for this"
