"""Statements that delete old rows."""

from __future__ import annotations

from datetime import datetime

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.retention.model import Table

queries = load_queries(__package__)
_DELETIONS: dict[Table, str] = {
    "payment_webhooks": queries.delete_payment_webhooks,
    "carrier_webhooks": queries.delete_carrier_webhooks,
    "shipment_events": queries.delete_tracking_events,
    "staff_requests": queries.delete_staff_answers,
    "carts": queries.delete_guest_carts,
    "checkouts": queries.delete_checkouts,
    "article_votes": queries.delete_article_votes,
    "missed_searches": queries.delete_missed_searches,
    "order_views": queries.delete_order_views,
    "sales_by_minute": queries.delete_sales_by_minute,
    "picture_imports": queries.delete_picture_imports,
    "product_quality_days": queries.delete_product_quality_days,
}


async def delete_old(connection: Connection, table: Table, before: datetime, count: int) -> list[datetime]:
    """Delete the oldest rows from before a moment, at most `count`. Returns when they were stored."""
    return [row[0] for row in await connection.fetch(_DELETIONS[table], before, count)]
