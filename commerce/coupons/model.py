"""Coupons of sales, as staff set and see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from commerce.kernel.types import Reason
from commerce.promotions.model import PromotionId
from commerce.sales.model import Limit, Units

MAX_COUPONS = 1_000
"""coupons of a sale: each gateway has their terms in memory"""
MAX_ISSUED_USERS = 10_000
"""users per request to issue codes"""

CODE_PATTERN = r"^[A-Z0-9][A-Z0-9-]{0,39}\Z"
CouponCode = Annotated[
    str, msgspec.Meta(pattern=CODE_PATTERN, description="what customers enter", examples=["NEWYEAR-20"])
]
CustomerId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]


class CouponInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new coupon of a promotion: how often it can be used in all and by each user.

    One that is `issued` is used with codes that are issued to customers, else everybody may enter `code`.
    """

    code: CouponCode
    promotion_id: PromotionId
    units: Units
    limit_per_user: Limit = 1
    issued: bool = False


class ChangedCoupon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changed terms of a coupon: an absent member leaves its value.

    `units` is the new number in all; only those that are not used can be taken away.
    """

    promotion_id: PromotionId | UnsetType = UNSET
    units: Units | UnsetType = UNSET
    limit_per_user: Limit | UnsetType = UNSET
    issued: bool | UnsetType = UNSET
    reason: Reason = "the number of coupons is changed"


class StoredCoupon(msgspec.Struct, frozen=True):
    """A coupon as stored.

    `pending_units` of its `units` are not in Redis yet; below 0 they are to be taken away.
    """

    code: str
    promotion_id: str
    issued: bool
    limit_per_user: int
    units: int
    pending_units: int
    created_at: datetime


class Coupon(msgspec.Struct, frozen=True):
    """A coupon with its number in all, of which some are used and some are left.

    `used` and `left` are null if Redis does not have the sale or does not answer.
    """

    code: CouponCode
    promotion_id: str
    issued: bool
    limit_per_user: int
    units: int
    used: int | None
    left: int | None
    created_at: datetime


class CouponList(msgspec.Struct, frozen=True):
    """All coupons of a sale, by code."""

    items: list[Coupon]


class IssueInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Customers to whom a coupon is issued."""

    users: Annotated[list[CustomerId], msgspec.Meta(min_length=1, max_length=MAX_ISSUED_USERS)]


class IssuedCode(msgspec.Struct, frozen=True):
    """The code with which one customer can use a coupon."""

    user_id: str
    code: str


class IssuedCodeList(msgspec.Struct, frozen=True):
    """Codes in sequence of the users that were given."""

    items: list[IssuedCode]
