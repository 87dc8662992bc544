"""Promotions and freight of the part `pricing`."""

from __future__ import annotations

from commerce.freight.model import FreightRegion, FreightStep, FreightTerms, FreightZone
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    MultiBuy,
    PercentOff,
    PercentReduction,
    PromotionClass,
    PromotionInput,
    ReductionStep,
    RepeatedReduction,
    Rule,
    SteppedReduction,
)
from loadtest.bench.environment import PRICE, SKU_PREFIX

SKUS = 40
FREIGHT = FreightTerms(
    currency="CNY",
    charged_by="pieces",
    zones=(
        FreightZone(
            "near",
            tuple(FreightRegion("CN", province) for province in ("Zhejiang", "Jiangsu", "Shanghai", "Anhui")),
            (FreightStep(0, 600, 10), FreightStep(10, 900, 50), FreightStep(50, 200, per=20)),
            free_from_minor=100 * PRICE,
        ),
        FreightZone("far", (FreightRegion("CN"),), (FreightStep(0, 1_200, 10), FreightStep(10, 300, per=10))),
        FreightZone("abroad", (FreightRegion("*"),), (FreightStep(0, 9_000, 10), FreightStep(10, 2_000, per=10))),
    ),
)


def list_promotions() -> list[PromotionInput]:
    """List twenty promotions.

    Each SKU has two of class item, one or more of class multi, and two or more of class order.
    """
    return [
        *(_on_part("item", number, PercentOff(500 + 250 * number), 5 * number, 10) for number in range(0, 8, 2)),
        *(_on_part("item", number, AmountOff(10 + number), 5 * number, 10) for number in range(1, 8, 2)),
        *(_on_part("multi", number, MultiBuy(3, 2), 10 * number, 12) for number in range(4)),
        *(_on_part("multi", number, Bundle(PRICE * 3 // 2), 3 * number, 2) for number in range(4, 6)),
        _create("order", 0, RepeatedReduction(threshold=2 * PRICE, amount=20, max_times=5)),
        _on_part("order", 1, PercentReduction(300), 0, 20),
        _on_part("order", 2, SteppedReduction([ReductionStep(PRICE, 5), ReductionStep(4 * PRICE, 30)]), 20, 20),
        _on_part("order", 3, PercentReduction(200, PRICE), 10, 20),
        *(_create("coupon", number, PercentReduction(1_000)) for number in range(2)),
    ]


def _on_part(promotion_class: str, number: int, rule: Rule, first: int, count: int) -> PromotionInput:
    """Create a promotion of so many SKUs from a first one, counted in a circle."""
    return _create(promotion_class, number, rule, [f"{SKU_PREFIX}{sku % SKUS}" for sku in range(first, first + count)])


def _create(promotion_class: str, number: int, rule: Rule, skus: list[str] | None = None) -> PromotionInput:
    name = f"{promotion_class}-{number}"
    return PromotionInput(name, f"Promotion {name}", PromotionClass(promotion_class), rule, skus)
