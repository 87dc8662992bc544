"""Typical values of lists of jobs, of products with their imports, and of stock."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID


def values_of_lists(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of lists: polls that wait, words that occur in no error, the newest changes."""
    first, last, later = UUID(int=0), UUID(int=2**128 - 1), now + timedelta(days=9)
    group: dict[int, object] = {1: ["polls"], 2: ["system-1"], 3: ["poll.1"]}
    return {
        "jobs.claim": {1: "shipments"},
        "jobs.count_due": {**group, 4: now, 5: 100_000},
        "jobs.list_scheduled": {**group, 4: [now], 5: [last], 6: later, 7: False, 8: 100},
        "jobs.list_failed": {1: True, 2: "polls", 3: first, 4: last, 7: later, 8: ["nothing"]},
        "jobs.find_last_examined": {1: False, 2: "polls", 3: first, 4: 10_000},
        "jobs.list_failed_queues": {1: False},
        "catalog.list_changes": {1: "product-5", 2: 100},
        "catalog.list_price_changes": {2: 2**63 - 1},
        "catalog.list_plans": {2: last},
        "product_imports.list_imports": {1: last},
        "product_imports.list_lines": {2: 0, 3: None},
        "product_imports.lock_old_import": {1: now - timedelta(days=399)},
        "product_imports.find_open_line": {2: 1, 3: 100},
        "product_imports.list_open_items": {2: 1, 3: 100},
        **{f"warehouse_stock.list_{name}": {1: "", 2: "", 3: None, 4: None} for name in ("levels", "low")},
        "warehouse_stock.list_movements": {2: None, 3: 2**63 - 1},
        "warehouse_stock.move": {1: "sku-5", 2: "w1", 3: "received", 4: 10},
        "warehouse_stock.list_unplanned_items": {1: now, 2: "", 3: ""},
    }
