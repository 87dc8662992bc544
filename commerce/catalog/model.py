"""Products of the catalog."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from commerce.kernel.money import Currency, Minor, Price, check_price
from commerce.kernel.types import Name

SKU_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
Sku = Annotated[str, msgspec.Meta(pattern=SKU_PATTERN, description="stock keeping unit", examples=["85123A"])]


class ProductInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data of a product that staff set."""

    name: Name
    price: Price
    currency: Currency

    def __post_init__(self) -> None:
        check_price(self.price)


class Product(msgspec.Struct, frozen=True):
    """A product with its list price in minor units."""

    sku: Sku
    name: Name
    price: Minor
    currency: Currency
    updated_at: datetime


class VersionedProduct(NamedTuple):
    """A product and the version of its row, which is another one after each change."""

    version: int
    product: Product
