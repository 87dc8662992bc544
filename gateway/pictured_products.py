"""Products with their pictures, as customers read them on a page, in a list and in a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import asdict

from commerce.catalog.model import ListedProduct, PublicProduct
from commerce.pictures.model import ProductPicture, PublicPicture
from commerce.pictures.shown_pictures import localise_pictures
from commerce.product_search.answers import FoundProduct, SearchAnswer

Covers = Mapping[str, Sequence[ProductPicture]]
"""the cover of each product by id; one without a cover has an empty sequence, or is left out"""


class PicturedProduct(PublicProduct, frozen=True, kw_only=True):
    """A product on sale in one language, with its variants and its pictures, the cover first."""

    pictures: list[PublicPicture]


class CoveredProduct(ListedProduct, frozen=True, kw_only=True):
    """A product on sale in a list.

    `cover` is its first picture, null if there is none or it cannot be read now."""

    cover: PublicPicture | None


class CoveredHit(FoundProduct, frozen=True, kw_only=True):
    """A product that was found.

    `cover` is its first picture, null if there is none or it cannot be read now."""

    cover: PublicPicture | None


class CoveredAnswer(SearchAnswer, frozen=True, kw_only=True):
    """A page of a search with the covers of its products."""

    items: Sequence[CoveredHit]


def add_pictures(product: PublicProduct, pictures: Sequence[ProductPicture], wanted: Sequence[str]) -> PicturedProduct:
    """Return a product with its pictures, described in the best language for a reader."""
    return PicturedProduct(**asdict(product), pictures=localise_pictures(pictures, wanted))


def add_covers(products: Sequence[ListedProduct], covers: Covers, wanted: Sequence[str]) -> list[CoveredProduct]:
    """Return products of a list with their covers."""
    return [
        CoveredProduct(**asdict(product), cover=_find_cover(covers, product.product_id, wanted)) for product in products
    ]


def cover_answer(answer: SearchAnswer, covers: Covers, wanted: Sequence[str]) -> CoveredAnswer:
    """Return a page of a search with the covers of its products."""
    items = [CoveredHit(**asdict(hit), cover=_find_cover(covers, hit.product_id, wanted)) for hit in answer.items]
    return CoveredAnswer(**{**asdict(answer), "items": items})


def _find_cover(covers: Covers, product_id: str, wanted: Sequence[str]) -> PublicPicture | None:
    return next(iter(localise_pictures(covers.get(product_id, ()), wanted)), None)
