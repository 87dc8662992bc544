"""The demonstration sale `festival`: reductions from a threshold, a coupon, and freight."""

from __future__ import annotations

from commerce.coupons.model import CouponInput
from commerce.freight.model import FreightRegion, FreightStep, FreightTerms, FreightZone
from commerce.promotions.model import PercentReduction, PromotionClass, PromotionInput, RepeatedReduction
from ops.services import CliServices

SALE_ID, COUPON = "festival", "TEN-OFF"
_FREIGHT = "demo-freight"
_PROMOTIONS = (
    PromotionInput(
        "every-300-less-50", "Every 300 less 50", PromotionClass.ORDER, RepeatedReduction(30_000, 5_000, max_times=3)
    ),
    PromotionInput("ten-percent-coupon", "10% off by coupon", PromotionClass.COUPON, PercentReduction(1_000)),
)
_FREE_FROM = 19_900
_CHINA = FreightZone(
    "China",
    (FreightRegion("CN"),),
    (FreightStep(0, 800, 1_000), FreightStep(1_000, 300, per=1_000)),
    _FREE_FROM,
)
_REMOTE = FreightZone(
    "Remote provinces",
    (FreightRegion("CN", "Xinjiang"), FreightRegion("CN", "Tibet")),
    (FreightStep(0, 1_800, 1_000), FreightStep(1_000, 1_200, per=1_000)),
)


async def create_festival_terms(shop: CliServices, actor: str) -> None:
    """Give the sale its promotions, a coupon and freight. A repeat changes nothing."""
    terms = FreightTerms(currency="CNY", charged_by="weight", cod_fee_minor=500, zones=(_CHINA, _REMOTE))
    await shop.sale_freight.put_templates({_FREIGHT: terms}, actor)
    await shop.sale_freight.assign(SALE_ID, _FREIGHT, actor)
    for promotion in _PROMOTIONS:
        await shop.promotions.create(SALE_ID, promotion, actor)
    await shop.coupons.create(SALE_ID, CouponInput(COUPON, "ten-percent-coupon", 1_000), actor)
