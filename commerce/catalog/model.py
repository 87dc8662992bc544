"""Variants of the catalog's products."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from commerce.kernel.money import Currency, Minor, Price, check_price
from commerce.kernel.types import Name

SKU_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
Sku = Annotated[str, msgspec.Meta(pattern=SKU_PATTERN, description="stock keeping unit", examples=["85123A"])]


class VariantInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data of a variant that staff set."""

    name: Name
    price: Price
    currency: Currency

    def __post_init__(self) -> None:
        check_price(self.price)


class Variant(msgspec.Struct, frozen=True):
    """A variant with its list price in minor units."""

    sku: Sku
    name: Name
    price: Minor
    currency: Currency
    updated_at: datetime


class VersionedVariant(NamedTuple):
    """A variant and the version of its row, which is another one after each change."""

    version: int
    variant: Variant
