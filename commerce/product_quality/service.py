"""Quality of products as staff see it: what to fix, the worst first."""

from __future__ import annotations

import re

from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.product_quality import store
from commerce.product_quality.errors import NotGraded
from commerce.product_quality.model import CURSOR_PATTERN, GradedProduct, QualityFilter


class ProductQuality:
    """The grades of products, over Postgres. A change of a product shows some seconds later."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, product_id: str) -> GradedProduct:
        """Read the quality of a product.

        Raises `NotGraded` if it is unknown or retired, or was created only a moment ago."""
        async with self._db.snapshot() as connection:
            product = await store.find_grade(connection, product_id)
        if product is None:
            raise NotGraded(
                f"{product_id} has no grade: there is no such product, it is retired, or it was created a moment ago"
            )
        return product

    async def list_products(self, wanted: QualityFilter, cursor: str | None, size: int) -> Page[GradedProduct]:
        """List products by points, those with the fewest first. Raises `Invalid` for a cursor that is none."""
        after = (-1, "") if cursor is None else read_cursor(cursor)
        async with self._db.snapshot() as connection:
            products = await store.list_grades(connection, wanted, after, size + 1)
        return to_page(products, size, lambda product: f"{product.points}-{product.product_id}")


def read_cursor(text: str) -> tuple[int, str]:
    """Return the points and the product of a cursor. Raises `Invalid`."""
    if re.match(CURSOR_PATTERN, text) is None:
        raise Invalid(f"cannot read the cursor {text!r}: it is none of this list; begin without one")
    points, _, product_id = text.partition("-")
    return int(points), product_id
