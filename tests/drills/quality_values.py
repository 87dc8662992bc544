"""Typical values of the statements on quality of products, and tables that may be read whole."""

from __future__ import annotations

from datetime import datetime, timedelta

SMALL_OF_QUALITY = {
    "products_to_grade": "deleted within seconds",
    "category_prices": "one row at most per category and currency",
    "product_quality_days": "a few rows per topmost category and day, deleted by age",
}


def values_of_quality(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of the list of the worst products, of candidates for duplicates, and of old grades."""
    return {
        "product_quality.list_candidates": {1: ["product-7"], 2: ["7,8,-999993"], 3: 50},
        "product_quality.list_grades": {1: -1, 2: "", 3: 0, 4: 100, 5: None, 6: None, 7: None, 8: 100},
        "product_quality.list_outdated": {1: now - timedelta(days=7), 2: 100},
        "product_quality.put_grades": {4: [50], 6: ["[]"], 8: ["1,2"]},
        "product_quality.list_subtree": {1: "category-1"},
    }
