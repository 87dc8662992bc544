"""Tables that are deleted from, and what a step has deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, NamedTuple

Table = Literal[
    "payment_webhooks",
    "carrier_webhooks",
    "shipment_events",
    "staff_requests",
    "carts",
    "checkouts",
    "article_votes",
    "missed_searches",
    "order_views",
    "sales_by_minute",
    "picture_imports",
    "product_quality_days",
]


class Deletion(NamedTuple):
    """The rows that a step deleted.

    `overdue` is how long the oldest row that is left may have been past its age, 0 if none is."""

    rows: int
    overdue: timedelta
