"""Reading orders and cancelling them. An order that was promised is found, wherever it is at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from msgspec.structs import replace
from redis.asyncio import Redis

from commerce.dead_letters import store as dead_letters
from commerce.kernel.clock import DAY_MS, Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.orders import store
from commerce.orders.errors import CannotCancel, NoSuchOrder, NotStoredYet
from commerce.orders.model import Order, OrderDetails, OrderEvent, OrderStatus, OrderSummary
from lua import SaleKeys, accepted_users, find_key_records

_LAST = UUID(int=2**128 - 1)
_BY_CUSTOMER = "the customer cancelled it"
_Owned = tuple[str | None, Order]
"""an order and whose it is"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose orders may be seen, None for everybody's; `name` is what an event records."""

    user_id: str | None
    name: str


class Orders:
    """Orders over Postgres, and over Redis for the moment before Postgres has them.

    Where a method takes `sales`, these are the ids of the sales that are loaded in Redis.
    """

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    async def get(self, order_id: UUID, user_id: str, sales: Sequence[str]) -> Order:
        """The user's order, or `NoSuchOrder`.

        Postgres is asked, then Redis, then Postgres again: the writer forgets an order in Redis only after it is in
        Postgres, so one that was in neither in the first two looks is in the third.
        """
        return (await self._find(order_id, user_id, sales))[1]

    async def get_details(self, order_id: UUID, sales: Sequence[str]) -> OrderDetails:
        """Anybody's order, for staff. Raises `NoSuchOrder`."""
        owner, order = await self._find(order_id, None, sales)
        return OrderDetails(owner, order, await self._events(order))

    async def _find(self, order_id: UUID, user_id: str | None, sales: Sequence[str]) -> _Owned:
        found = await self._stored(order_id, user_id)
        if found is None:
            found = await self._accepted(order_id, user_id, sales)
        if found is None:
            found = await self._stored(order_id, user_id)
        if found is None:
            raise NoSuchOrder(f"there is no order {order_id}{', or it is not yours' if user_id else ''}")
        return found

    async def _stored(self, order_id: UUID, user_id: str | None) -> _Owned | None:
        async with self._db.connection() as connection:
            if found := await store.get(connection, order_id):
                return found if user_id in (found[0], None) else None
            held = await dead_letters.get(connection, order_id)
        if held is None or user_id not in (held.letter.user_id, None):
            return None
        letter = held.letter
        if letter.status == "discarded":
            return letter.user_id, Order(order_id, OrderStatus.CANCELLED, letter.sale_id, cancel_reason="refused")
        return letter.user_id, Order(order_id, OrderStatus.ACCEPTED, letter.sale_id, accepted_at=letter.accepted_at)

    async def _accepted(self, order_id: UUID, user_id: str | None, sales: Sequence[str]) -> _Owned | None:
        try:
            users = await accepted_users(self._redis, [SaleKeys(sale) for sale in sales], order_id)
        except REDIS_UNAVAILABLE as error:
            raise NotReady("Redis does not answer, so it is not known whether there is such an order") from error
        for sale_id, user in zip(sales, users, strict=True):
            if user is not None and user_id in (user, None):
                return user, Order(order_id, OrderStatus.ACCEPTED, sale_id)
        return None

    async def find_by_key(self, user_id: str, idempotency_key: str, sales: Sequence[str]) -> Order | None:
        """The order that stands under a key, for a client that lost the reply."""
        day = self._clock.now_ms() // DAY_MS
        try:
            records = await find_key_records(
                self._redis, [SaleKeys(sale) for sale in sales], day, user_id, idempotency_key
            )
        except REDIS_UNAVAILABLE as error:
            raise NotReady("Redis does not answer, so it is not known whether there is such an order") from error
        order_id = next((record.order_id for record in records if record), None)
        if order_id is None:
            async with self._db.connection() as connection:
                order_id = await store.id_by_key(connection, user_id, idempotency_key)
        return await self.get(order_id, user_id, sales) if order_id else None

    async def list_orders(self, user_id: str, before: UUID | None, size: int) -> Page[OrderSummary]:
        """The user's stored orders, newest first."""
        async with self._db.connection() as connection:
            found = await store.list_before(connection, user_id, before or _LAST, size + 1)
        return to_page(found, size, lambda order: str(order.order_id))

    async def list_events(self, order_id: UUID, user_id: str, sales: Sequence[str]) -> list[OrderEvent]:
        """What has happened to the order so far; before Postgres has it nothing but acceptance is known.

        Which of the staff it was is not the customer's to know.
        """
        events = await self._events(await self.get(order_id, user_id, sales))
        return [
            replace(event, actor="staff") if event.actor.startswith(("staff ", "cli ")) else event for event in events
        ]

    async def _events(self, order: Order) -> list[OrderEvent]:
        async with self._db.connection() as connection:
            events = await store.events(connection, order.order_id)
        if events:
            return events
        at = order.accepted_at or from_ms(self._clock.now_ms())
        return [OrderEvent(0, at, OrderStatus.ACCEPTED, "customer", "the stock was taken")]

    async def latest_event_seqs(self, order_ids: Sequence[UUID]) -> dict[UUID, int]:
        """For those that are stored, the seq of their last event."""
        async with self._db.connection() as connection:
            return await store.latest_event_seqs(connection, order_ids)

    async def cancel(
        self, order_id: UUID, actor: Actor, sales: Sequence[str], wait_s: float, reason: str = _BY_CUSTOMER
    ) -> Order:
        """Cancel an order that is not paid yet; its goods and limit go back. A repeat gives the same answer.

        An order that the writer has not stored yet is waited for, at most `wait_s` seconds.
        """
        deadline = self._clock.monotonic() + wait_s
        while (order := (await self._find(order_id, actor.user_id, sales))[1]).status is OrderStatus.ACCEPTED:
            if self._clock.monotonic() >= deadline:
                if actor.user_id is None and await self._is_dead(order_id):
                    raise CannotCancel("the order could not be written: discard the dead letter instead")
                raise NotStoredYet("the order is not stored yet: repeat the request in a moment")
            await asyncio.sleep(0.05)
        if order.status is OrderStatus.CANCELLED:
            return order
        if order.status is OrderStatus.AWAITING_PAYMENT:
            now, cause = from_ms(self._clock.now_ms()), "by_staff" if actor.user_id is None else "by_customer"
            async with self._db.transaction() as connection:
                await store.cancel(connection, [order_id], now, cause, actor.name, reason)
            order = (await self._find(order_id, actor.user_id, sales))[1]
        if order.status is not OrderStatus.CANCELLED:
            raise CannotCancel(f"the order is {order.status}: ask for a return instead")
        return order

    async def _is_dead(self, order_id: UUID) -> bool:
        async with self._db.connection() as connection:
            return await dead_letters.get(connection, order_id) is not None
