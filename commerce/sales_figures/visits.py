"""Storing of what gateways count themselves, because no rows have it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from commerce.kernel.postgres import Database
from commerce.sales_figures import store
from commerce.sales_figures.model import Visit


async def record(db: Database, now: datetime, counts: Mapping[tuple[Visit, str, str], int]) -> None:
    """Note visits by figure, sale and SKU in one statement. They count in the minute of `now`."""
    async with db.connection() as connection:
        await store.insert_visits(connection, now.replace(second=0, microsecond=0), counts)
