"""Promotions of a sale: their classes and rules, the discounts that they result in, and the reasons.

All amounts are integers of minor units of the sale's currency. A percentage is given in basis points, 1 of 10,000;
what it takes off is rounded half up, which is in favour of the customer, and is never more than there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from commerce.catalog.model import Sku
from commerce.kernel.moments import Moment, WithMoments
from commerce.kernel.money import MAX_MINOR
from commerce.kernel.types import Name

WHOLE = 10_000
"""basis points of the whole"""
MAX_SKUS = 5_000
MAX_BUNDLE_SKUS = 20
MAX_STEPS = 20

PromotionId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z",
        description="the promotion's name within its sale",
        examples=["300-less-40"],
    ),
]
PositiveMinor = Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR, description="minor units of the currency, at least 1")]
BasisPoints = Annotated[int, msgspec.Meta(ge=1, le=WHOLE, description="hundredths of a percent: 1500 takes 15 % off")]
SkuList = Annotated[list[Sku], msgspec.Meta(min_length=1, max_length=MAX_SKUS)]
UnitCount = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class PromotionClass(StrEnum):
    """The classes in the order in which they are applied.

    Each one sees the prices that the ones before have left. Within a class promotions exclude each other where they
    touch the same SKU of an order.
    """

    ITEM = "item"
    MULTI = "multi"
    ORDER = "order"
    COUPON = "coupon"


class PercentOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="percent_off"):
    """A percentage off each unit; in the class `coupon`, off what is left of all units of a SKU."""

    basis_points: BasisPoints


class AmountOff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="amount_off"):
    """An amount off each unit, at most its price."""

    amount: PositiveMinor


class MultiBuy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="multi_buy"):
    """`units` for the price of `paid_units`.

    Units are grouped from the dearest to the cheapest, also over several SKUs; of each full group the cheapest are
    free. So nobody gains by splitting an order.
    """

    units: UnitCount
    paid_units: UnitCount


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bundle"):
    """One unit of each SKU of the promotion for `price` together, as often as the order has them all."""

    price: PositiveMinor


class ReductionStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`amount` off from `threshold`."""

    threshold: PositiveMinor
    amount: PositiveMinor


class SteppedReduction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="stepped"):
    """The amount of the highest step that is reached; thresholds and amounts ascend."""

    steps: Annotated[list[ReductionStep], msgspec.Meta(min_length=1, max_length=MAX_STEPS)]


class RepeatedReduction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="repeated"):
    """`amount` off for every full `threshold`, at most `max_times`; null: no maximum."""

    threshold: PositiveMinor
    amount: PositiveMinor
    max_times: UnitCount | None = None


class PercentReduction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="percent"):
    """A percentage off the whole from `threshold`, which may be 0."""

    basis_points: BasisPoints
    threshold: Annotated[int, msgspec.Meta(ge=0, le=MAX_MINOR)] = 0


Rule = PercentOff | AmountOff | MultiBuy | Bundle | SteppedReduction | RepeatedReduction | PercentReduction

_ITEM_RULES, _MULTI_RULES = (PercentOff, AmountOff), (MultiBuy, Bundle)
_ORDER_RULES = (SteppedReduction, RepeatedReduction, PercentReduction)
ALLOWED_RULES: Mapping[PromotionClass, tuple[type[Rule], ...]] = {
    PromotionClass.ITEM: _ITEM_RULES,
    PromotionClass.MULTI: _MULTI_RULES,
    PromotionClass.ORDER: _ORDER_RULES,
    PromotionClass.COUPON: (*_ITEM_RULES, *_MULTI_RULES, *_ORDER_RULES),
}
"""The rules that each class may have.

With the order of the classes it means that no promotion depends on its own effect."""


class PromotionInput(WithMoments, frozen=True, forbid_unknown_fields=True):
    """A promotion that staff create. What is left out is not restricted."""

    promotion_id: PromotionId
    label: Name
    promotion_class: PromotionClass
    rule: Rule
    skus: SkuList | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    new_customers_only: bool = False
    enabled: bool = True


class ChangedPromotion(WithMoments, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Changed terms of a promotion: an absent member leaves its value, null removes a restriction.

    The class stays: a coupon must not become a promotion for everybody.
    """

    label: Name | UnsetType = UNSET
    rule: Rule | UnsetType = UNSET
    skus: SkuList | UnsetType | None = UNSET
    starts_at: Moment | UnsetType | None = UNSET
    ends_at: Moment | UnsetType | None = UNSET
    new_customers_only: bool | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class Promotion(msgspec.Struct, frozen=True):
    """A promotion of a sale.

    `label` is what customers read. Without `skus`, which are sorted, it is for all of the sale. It is in force from
    `starts_at` until before `ends_at`, where they are set.
    """

    promotion_id: PromotionId
    sale_id: str
    label: Name
    promotion_class: PromotionClass
    rule: Rule
    skus: tuple[Sku, ...] | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    new_customers_only: bool = False
    enabled: bool = True

    @property
    def needs_coupon(self) -> bool:
        """Tell whether a coupon of this promotion must be presented, which makes it the class `coupon`."""
        return self.promotion_class is PromotionClass.COUPON


class Discount(msgspec.Struct, frozen=True):
    """The amount that a promotion takes off an order. It is the sum of `by_sku`, none of which is 0."""

    promotion_id: str
    label: str
    promotion_class: PromotionClass
    amount: int
    by_sku: dict[str, int]


class Evaluation(msgspec.Struct, frozen=True):
    """The discounts of an order in the order in which they are applied.

    `by_sku` adds them up by SKU, `amount` altogether. Equal orders share one object, so change nothing in it.
    """

    discounts: tuple[Discount, ...]
    by_sku: dict[str, int]
    amount: int


NO_DISCOUNTS = Evaluation((), {}, 0)

ExplanationCode = Literal[
    "applied",
    "disabled",
    "not_started",
    "ended",
    "not_in_order",
    "new_customers_only",
    "needs_coupon",
    "excluded",
    "below_threshold",
    "too_few_units",
    "no_effect",
]


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One promotion and one order: applied, or the reason why not.

    `amount` is what it takes off, for `excluded` what it would have taken off. `missing_amount` or `missing_units`
    are what the order lacks for the next reduction, and `next_amount` is what comes off then, in place of `amount`;
    an applied promotion may have a next one too. `missing_skus` are those that a bundle lacks. `instead` are the
    promotions of the class that are better. `moment` is when it begins or has ended.
    """

    promotion_id: str
    label: str
    promotion_class: PromotionClass
    code: ExplanationCode
    message: str
    amount: int = 0
    missing_amount: int | None = None
    missing_units: int | None = None
    missing_skus: list[str] = []
    next_amount: int | None = None
    instead: list[str] = []
    moment: datetime | None = None


class TrialLine(msgspec.Struct, frozen=True):
    """A line of an order to try: a SKU and how many units of it."""

    sku: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class TrialOrder(msgspec.Struct, frozen=True):
    """An order to try promotions with. Other members are ignored, so the body of an order is one too."""

    lines: Annotated[list[TrialLine], msgspec.Meta(min_length=1, max_length=1_000)]


class PricedLine(msgspec.Struct, frozen=True):
    """A line with what it costs: quantity times unit price, less the discount, is the amount."""

    sku: str
    quantity: int
    unit_price: int
    discount: int
    amount: int


class PromotionTrial(msgspec.Struct, frozen=True):
    """An order as it would be priced, and the reason for each promotion of the sale.

    The subtotal less the discount is the total, all in minor units of `currency`; freight comes on top.
    """

    sale_id: str
    currency: str
    lines: list[PricedLine]
    subtotal: int
    discount: int
    total: int
    discounts: tuple[Discount, ...]
    explanations: list[Explanation]
