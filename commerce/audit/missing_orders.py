"""Orders that Redis knows and Postgres does not: what a restored Postgres has lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from commerce.kernel.clock import DAY_MS, Clock, from_ms
from commerce.kernel.money import Money
from commerce.kernel.postgres import Database
from commerce.sales.model import Sale
from commerce.sales.store import find_persisted
from lua import SaleKeys, iter_key_records, iter_stream, read_all_accepted

_DAYS_BEFORE, _DAYS_AFTER = 3, 1
"""days around today whose idempotency keys Redis may still have"""
_ORDERS_PER_QUERY = 5_000


class MissingOrder(msgspec.Struct, frozen=True):
    """An order that is neither in Postgres nor in the stream.

    Without its idempotency key, which Redis drops after two days, only the user is known.
    """

    order_id: UUID
    sale_id: str
    user_id: str
    idempotency_key: str | None = None
    total: Money | None = None
    accepted_at: datetime | None = None


class MissingOrders:
    """Compares the orders of sales in both databases."""

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    async def list_missing(self, sale: Sale) -> list[MissingOrder]:
        """Return the missing orders of a sale, oldest first. Works while orders flow.

        An order leaves the stream once it is in Postgres, so Postgres is read last.
        """
        missing: dict[UUID, MissingOrder] = {}
        async for orders in self._iter_known(sale):
            persisted = await self._find_persisted(list(orders))
            missing |= {order_id: order for order_id, order in orders.items() if order_id not in persisted}
        if missing:
            async for entry in iter_stream(self._redis, SaleKeys(sale.sale_id)):
                for order_id, _ in entry.orders:
                    missing.pop(UUID(bytes=order_id), None)
        persisted = await self._find_persisted(list(missing))
        return [missing[order_id] for order_id in sorted(missing.keys() - persisted)]

    async def _iter_known(self, sale: Sale) -> AsyncIterator[dict[UUID, MissingOrder]]:
        """Yield the orders that Redis knows, in groups."""
        keys, today = SaleKeys(sale.sale_id), self._clock.now_ms() // DAY_MS
        yield {
            order_id: MissingOrder(order_id, sale.sale_id, user_id)
            for order_id, user_id in (await read_all_accepted(self._redis, keys)).items()
        }
        group: dict[UUID, MissingOrder] = {}
        for day in range(today - _DAYS_BEFORE, today + _DAYS_AFTER + 1):
            async for user_id, idempotency_key, record in iter_key_records(self._redis, keys, day):
                total = Money(record.total_minor, sale.currency)
                group[record.order_id] = MissingOrder(
                    record.order_id, sale.sale_id, user_id, idempotency_key, total, from_ms(record.entry.ms)
                )
                if len(group) >= _ORDERS_PER_QUERY:
                    yield group
                    group = {}
        yield group

    async def _find_persisted(self, order_ids: Sequence[UUID]) -> set[UUID]:
        if not order_ids:
            return set()
        async with self._db.connection() as connection:
            return await find_persisted(connection, order_ids)
