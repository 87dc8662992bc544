"""Problems that warehouses answer with."""

from __future__ import annotations

from commerce.kernel.errors import NotFound


class NoProductLogistics(NotFound):
    title = "The product has no logistics data"
