"""The SKUs of coupons. A coupon is a unit of its sale's stock, under a SKU that no product can have."""

from __future__ import annotations

COUPON_PREFIX = "coupon:"


def coupon_sku(code: str) -> str:
    """Return the SKU under which a sale's stock has the coupon."""
    return COUPON_PREFIX + code


def first_order_code(promotion_id: str) -> str:
    """Return the code of the unit that a first order with a promotion for new customers takes.

    Nobody can enter it, and each user can have one: of two first orders at once one has the discount.
    """
    return f"@{promotion_id}"


def is_first_order_sku(sku: str) -> bool:
    """Tell the units of first orders from coupons and products."""
    return sku.startswith(COUPON_PREFIX + "@")


def is_coupon_sku(sku: str) -> bool:
    """Tell coupons from products."""
    return sku.startswith(COUPON_PREFIX)
