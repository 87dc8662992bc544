"""Typical values of the statements of reports on sales."""

from __future__ import annotations

from datetime import datetime, timedelta


def values_of_sales(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of reports on one sale of many, and on the one that never closes for a day."""
    day: dict[int, object] = {2: now.date() - timedelta(days=1), 3: now.date() + timedelta(days=1)}
    sale: dict[int, object] = {1: ["ordinary", ""]}
    return {
        "sales_figures.sum_days": sale | {2: "", 3: now.date() - timedelta(days=1), 4: now.date() + timedelta(days=1)},
        "sales_figures.sum_minutes": sale | {2: "", 3: now - timedelta(days=1), 4: now},
        "sales_figures.sum_skus": sale | day | {4: 60_000},
        "sales_figures.sum_reasons": sale | day | {4: None, 5: 5_000},
    }
