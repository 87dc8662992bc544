"""Errors of coupons, for customers and staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, NotReady


class NoSuchCoupon(NotFound):
    title = "The sale has no such coupon"


class TooManyCoupons(Conflict):
    title = "The sale has as many coupons as it can have"


class CouponUsedUp(Conflict):
    code = "coupon_used_up"
    title = "The coupon has been used as often as it can be"


class OverCouponLimit(Conflict):
    code = "coupon_limit"
    title = "You have used this coupon as often as one customer can"


class CouponKeyMissing(NotReady):
    title = "The settings have no key that signs the codes of coupons"
