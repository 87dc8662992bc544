"""Coupons of a sale for tests, with their promotions."""

from __future__ import annotations

from typing import Any

from commerce.coupons.model import Coupon, CouponInput
from commerce.promotions.model import AmountOff, PromotionClass, PromotionInput
from ops.services import CliServices

PROMOTION = "ten-off"


async def make_promotion(shop: CliServices, sale_id: str, promotion_id: str = PROMOTION, **more: Any) -> None:
    """Create a promotion that takes 10 minor units off each unit, with its coupons."""
    new = PromotionInput(promotion_id, f"label of {promotion_id}", PromotionClass.COUPON, AmountOff(10), **more)
    await shop.promotions.create(sale_id, new, "test")


async def make_coupon(shop: CliServices, sale_id: str, code: str, units: int, **more: Any) -> Coupon:
    """Create a coupon, whose promotion is `PROMOTION` unless another one is named."""
    promotion_id = more.pop("promotion_id", PROMOTION)
    await make_promotion(shop, sale_id, promotion_id)
    return await shop.coupons.create(sale_id, CouponInput(code, promotion_id, units, **more), "test")
