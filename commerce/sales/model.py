"""Sales, their items and stock changes, and the snapshot that a gateway prices orders with."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.catalog.model import SKU_PATTERN, Sku
from commerce.freight.model import CompiledFreight, FreightName
from commerce.kernel.coupon_skus import COUPON_PREFIX
from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.money import Currency, Minor, Price, check_price
from commerce.kernel.types import Name, Reason
from commerce.promotions.evaluation import CompiledPromotions

MAX_UNITS = 1_000_000_000
_KEY_LIFETIME = timedelta(days=3)

SALE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}\Z"
SaleId = Annotated[
    str,
    msgspec.Meta(pattern=SALE_PATTERN, description="the sale's name in URLs", examples=["double-11"]),
]
StockSku = Annotated[
    str,
    msgspec.Meta(
        pattern=SKU_PATTERN.replace("^", f"^({COUPON_PREFIX})?", 1),
        description=f"a product's SKU, or {COUPON_PREFIX}CODE",
        examples=["85123A"],
    ),
]
Units = Annotated[int, msgspec.Meta(ge=0, le=MAX_UNITS)]
PaymentSeconds = Annotated[int, msgspec.Meta(ge=10, le=31_536_000, description="seconds until an unpaid order expires")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000_000, description="maximum units per user; null: no limit")]


class SaleState(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


class SaleInput(WithMoments, frozen=True, forbid_unknown_fields=True):
    """The data of a new sale. A sale without `closes_at` does not close, as in ordinary trade."""

    sale_id: SaleId
    title: Name
    currency: Currency
    opens_at: Moment
    closes_at: Moment | None = None
    pay_within_s: PaymentSeconds = 900


class ItemInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Terms of a SKU in a sale.

    Without `price` the list price of the product is used. `units` is the stock at opening.
    """

    price: Price | None = None
    limit_per_user: Limit | None = None
    units: Units = 0

    def __post_init__(self) -> None:
        if self.price is not None:
            check_price(self.price)


class Sale(msgspec.Struct, frozen=True):
    """A sale as stored.

    `epoch` counts loads into Redis and `generation` changes of terms; `loaded_epoch` and `published_generation` are
    those that Redis has. With `has_wait_list` returned units are held back for those who wait. Without a
    `freight_template` freight is free.
    """

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
    has_wait_list: bool = False
    freight_template: FreightName | None = None

    @property
    def is_loaded(self) -> bool:
        return 0 < self.epoch == self.loaded_epoch

    def has_live_keys(self, now: datetime) -> bool:
        """Check if Redis may hold idempotency keys of this sale that are still valid.

        A key is valid on its day and the next, and no order is accepted after the end. The third day covers differing
        clocks and an end that was published late. Until the end is published, the sale continues in Redis.
        """
        ends = [end for end in (self.closed_at, self.closes_at) if end is not None]
        return not ends or self.published_generation < self.generation or now - min(ends) < _KEY_LIFETIME


class SaleItem(msgspec.Struct, frozen=True):
    """A SKU in a sale with its price in minor units, limit per user, and stock at opening."""

    sku: Sku
    name: Name
    price: Minor
    limit_per_user: int | None
    initial_units: int


class StockChangeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units to add (`delta` above 0) or to remove (below 0) while the sale runs."""

    sku: StockSku
    delta: Annotated[int, msgspec.Meta(ge=-MAX_UNITS, le=MAX_UNITS)]
    reason: Reason


class StockChange(msgspec.Struct, frozen=True):
    """A recorded change of stock. A `pending` change is applied as soon as Redis answers."""

    change_id: UUID
    sale_id: SaleId
    sku: StockSku
    delta: int
    reason: str
    actor: str
    status: Literal["pending", "applied", "refused", "parked"]
    last_error: str | None
    created_at: datetime


class PublicSale(msgspec.Struct, frozen=True):
    """The public part of a sale."""

    sale_id: SaleId
    title: Name
    currency: Currency
    state: SaleState
    opens_at: datetime
    closes_at: datetime | None


class Offer(msgspec.Struct, frozen=True):
    """The public part of an item.

    `available` is the stock at the page's `as_of`, null if Redis did not answer.
    """

    sku: Sku
    name: Name
    price: Minor
    currency: Currency
    limit_per_user: int | None
    available: int | None


class OfferPage(msgspec.Struct, frozen=True):
    """One page of offers. `next` is the cursor of the following page, null on the last.

    `as_of` is when the stock was read, null if it could not be read.
    """

    items: list[Offer]
    next: str | None
    as_of: datetime | None


class CouponTerms(NamedTuple):
    """The terms of a coupon: its promotion and its limit per user, 0 for none.

    Of one that `is_issued` a customer needs a code that was issued to him.
    """

    promotion_id: str
    limit: int
    is_issued: bool


class ItemTerms(NamedTuple):
    """Terms of a SKU in a sale, as they were when they changed last; prices are in minor units.

    `limit` is the limit per user, 0 if there is none; `list_price` is the product's own; `weight_g` is 0 if unknown.
    """

    price: int
    limit: int
    list_price: int
    weight_g: int


class SaleSnapshot(msgspec.Struct):
    """The terms that a gateway prices orders with: items by the SKUs of products, coupons by code.

    Without `freight` customers pay none. `promotions` are None if none is enabled.
    """

    sale: Sale
    items: dict[str, ItemTerms]
    coupons: dict[str, CouponTerms] = {}
    promotions: CompiledPromotions | None = None
    freight: CompiledFreight | None = None
