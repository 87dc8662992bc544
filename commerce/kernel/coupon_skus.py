"""The SKUs of coupons. A coupon is a unit of its sale's stock, under a SKU that no product can have."""

from __future__ import annotations

COUPON_PREFIX = "coupon:"


def coupon_sku(code: str) -> str:
    """Return the SKU under which a sale's stock has the coupon."""
    return COUPON_PREFIX + code


def is_coupon_sku(sku: str) -> bool:
    """Tell coupons from products."""
    return sku.startswith(COUPON_PREFIX)
