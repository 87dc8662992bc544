"""Pictures of products as customers see them: all of a product, and covers for lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from commerce.kernel.languages import choose_text
from commerce.kernel.postgres import Database
from commerce.pictures import store
from commerce.pictures.model import ProductPicture, PublicPicture


class ShownPictures:
    """Reads the pictures of many products at once. A product without any has an empty list."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, product_ids: Iterable[str]) -> dict[str, list[ProductPicture]]:
        """Return all pictures of each product, the cover first."""
        wanted = list(product_ids)
        async with self._db.connection() as connection:
            pictures = await store.list_of_products(connection, wanted)
        return {product_id: pictures.get(product_id, []) for product_id in wanted}

    async def read_covers(self, product_ids: Iterable[str]) -> dict[str, list[ProductPicture]]:
        """Return the cover alone of each product."""
        wanted = list(product_ids)
        async with self._db.connection() as connection:
            covers = await store.list_covers(connection, wanted)
        return {product_id: covers.get(product_id, []) for product_id in wanted}


def localise_pictures(pictures: Sequence[ProductPicture], wanted: Sequence[str]) -> list[PublicPicture]:
    """Return pictures with their texts in the best language for a reader."""
    return [PublicPicture(choose_text(picture.alt_texts, wanted, "") or None, picture.files) for picture in pictures]
