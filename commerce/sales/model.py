"""Sales, what they offer, and what a gateway needs to know of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.catalog.model import Sku
from commerce.kernel.money import Currency, Minor
from commerce.kernel.types import Moment, Name, Reason

MAX_UNITS = 1_000_000_000
_KEYS_COUNT = timedelta(days=3)

SALE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}\Z"
SaleId = Annotated[
    str,
    msgspec.Meta(pattern=SALE_PATTERN, description="the sale's name in URLs", examples=["double-11"]),
]
Units = Annotated[int, msgspec.Meta(ge=0, le=MAX_UNITS)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000_000, description="units a user may buy; null: no limit")]


class SaleState(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class SaleInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What staff say of a new sale. Without `closes_at` it never closes, which is ordinary trade."""

    sale_id: SaleId
    title: Name
    currency: Currency
    opens_at: Moment
    closes_at: Moment | None = None
    pay_within_s: Annotated[int, msgspec.Meta(ge=10, le=31_536_000)] = 900


class ItemInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A SKU's terms in a sale. Without a price the product's own counts; `units` is the stock it opens with."""

    price: Minor | None = None
    limit_per_user: Limit | None = None
    units: Units = 0


class Sale(msgspec.Struct, frozen=True):
    """A sale as the database has it."""

    sale_id: SaleId
    title: Name
    currency: Currency
    state: SaleState
    opens_at: datetime
    closes_at: datetime | None
    closed_at: datetime | None
    pay_within_s: int
    generation: int
    published_generation: int
    epoch: int
    loaded_epoch: int

    @property
    def loaded(self) -> bool:
        return 0 < self.epoch == self.loaded_epoch

    def has_live_keys(self, now: datetime) -> bool:
        """Whether an order's key is still to be looked for in this sale's Redis keys.

        A key counts on its day and the next, and no order is accepted after the end; one day more is for clocks that
        differ and for an end that Redis was told late. While Redis was not told at all, the sale goes on.
        """
        ends = [end for end in (self.closed_at, self.closes_at) if end is not None]
        return not ends or self.published_generation < self.generation or now - min(ends) < _KEYS_COUNT


class SaleItem(msgspec.Struct, frozen=True):
    """A SKU in a sale: its price in minor units, limit a user, and the units the sale opened with."""

    sku: Sku
    name: Name
    price: Minor
    limit_per_user: int | None
    initial_units: int


class StockChangeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that come (delta above 0) or go (below 0) while the sale runs."""

    sku: Sku
    delta: Annotated[int, msgspec.Meta(ge=-MAX_UNITS, le=MAX_UNITS)]
    reason: Reason


class StockChange(msgspec.Struct, frozen=True):
    """A recorded change of stock. `pending` is applied as soon as Redis answers."""

    change_id: UUID
    sale_id: SaleId
    sku: Sku
    delta: int
    reason: str
    actor: str
    status: Literal["pending", "applied", "refused", "parked"]
    last_error: str | None
    created_at: datetime


class PublicSale(msgspec.Struct, frozen=True):
    """A sale as a shopper sees it."""

    sale_id: SaleId
    title: Name
    currency: Currency
    state: SaleState
    opens_at: datetime
    closes_at: datetime | None


class Offer(msgspec.Struct, frozen=True):
    """An item as a shopper sees it. `available` is a moment's reading, null when it is not known."""

    sku: Sku
    name: Name
    price: Minor
    currency: Currency
    limit_per_user: int | None
    available: int | None


class SaleSnapshot(msgspec.Struct):
    """What a gateway prices orders with: the sale and, by SKU, (price in minor units, limit or 0)."""

    sale: Sale
    items: dict[str, tuple[int, int]]
