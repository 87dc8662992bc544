"""Reads and cancels orders. An accepted order is found before and after it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
from commerce.orders.model import Order, OrderDetails, OrderEvent, OrderStatus, OrderSummary, VersionedOrder
from commerce.orders.state_store import has_open_matters
from lua import SaleKeys, find_accepted_users, find_key_records, read_accepted_users

_LAST = UUID(int=2**128 - 1)
_CANCELLED_BY_CUSTOMER = "the customer cancelled it"
_POLL_INTERVAL_S = 0.05
_OwnedOrder = tuple[str | None, Order]
"""an order with its user id, which is None if the order cannot be decoded"""


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone who acts on orders; events record `name`.

    A `user_id` limits the actor to the orders of that customer. None stands for staff, who may act on all orders.
    """

    user_id: str | None
    name: str


class Orders:
    """Orders over Postgres, and over Redis until they are stored.

    The parameter `sales` of methods contains the ids of the sales that are loaded in Redis.
    """

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    async def get(self, order_id: UUID, user_id: str, sales: Sequence[str]) -> Order:
        """Read an order of the user. Raises `NoSuchOrder`, and `NotReady` if Redis does not answer.

        Reads Postgres, then Redis, then Postgres again: the writer removes an order from Redis after storing it, so an
        order that is missing in the first two reads is found by the third.
        """
        return (await self._find(order_id, user_id, sales))[1]

    async def find(self, order_id: UUID, user_id: str | None, sales: Sequence[str]) -> Order:
        """Read an order as `get` does; for staff (`user_id` None) of any customer."""
        return (await self._find(order_id, user_id, sales))[1]

    async def read_changed(self, versions: Mapping[UUID, int | None]) -> dict[UUID, VersionedOrder | None]:
        """Read those of the stored orders whose version is not the given one, in one query, whosever they are.

        An order that the caller does not have has the version None. It is left out if it is not stored, like an order
        that has not changed; None stands for one that is gone.
        """
        async with self._db.connection() as connection:
            return await store.read_changed(connection, versions)

    async def find_accepted(self, order_ids: Sequence[UUID], sales: Sequence[str]) -> dict[UUID, tuple[str, Order]]:
        """Find accepted orders that are not stored yet, with their users, in one call per sale.

        Raises an error of `REDIS_UNAVAILABLE` if Redis does not answer.
        """
        places = await find_accepted_users(self._redis, [SaleKeys(sale) for sale in sales], order_ids)
        return {
            order_id: (place[1], Order(order_id, OrderStatus.ACCEPTED, sales[place[0]]))
            for order_id, place in zip(order_ids, places, strict=True)
            if place is not None
        }

    async def find_customers(self, user_ids: Sequence[str]) -> set[str]:
        """Return those of the users who have a stored order that is not cancelled."""
        async with self._db.connection() as connection:
            return await store.find_customers(connection, user_ids)

    async def get_details(self, order_id: UUID, sales: Sequence[str]) -> OrderDetails:
        """Read any customer's order with its events, for staff. Raises `NoSuchOrder`."""
        user_id, order = await self._find(order_id, None, sales)
        return OrderDetails(user_id, order, await self._read_events(order))

    async def _find(self, order_id: UUID, user_id: str | None, sales: Sequence[str]) -> _OwnedOrder:
        owned_order = await self._find_stored(order_id, user_id)
        if owned_order is None:
            owned_order = await self._find_accepted(order_id, user_id, sales)
        if owned_order is None:
            owned_order = await self._find_stored(order_id, user_id)
        if owned_order is None:
            raise NoSuchOrder(f"there is no order {order_id}{', or it is not yours' if user_id else ''}")
        return owned_order

    async def _find_stored(self, order_id: UUID, user_id: str | None) -> _OwnedOrder | None:
        async with self._db.connection() as connection:
            if owned_order := await store.get(connection, order_id):
                return owned_order if user_id in (owned_order[0], None) else None
            dead_letter = await dead_letters.get(connection, order_id)
        if dead_letter is None or user_id not in (dead_letter.letter.user_id, None):
            return None
        letter = dead_letter.letter
        if letter.status == "discarded":
            return letter.user_id, Order(order_id, OrderStatus.CANCELLED, letter.sale_id, cancel_reason="refused")
        return letter.user_id, Order(order_id, OrderStatus.ACCEPTED, letter.sale_id, accepted_at=letter.accepted_at)

    async def _find_accepted(self, order_id: UUID, user_id: str | None, sales: Sequence[str]) -> _OwnedOrder | None:
        try:
            users = await read_accepted_users(self._redis, [SaleKeys(sale) for sale in sales], order_id)
        except REDIS_UNAVAILABLE as error:
            raise NotReady("cannot look up the order: Redis does not answer; repeat the request") from error
        for sale_id, accepted_user in zip(sales, users, strict=True):
            if accepted_user is not None and user_id in (accepted_user, None):
                return accepted_user, Order(order_id, OrderStatus.ACCEPTED, sale_id)
        return None

    async def find_by_key(self, user_id: str, idempotency_key: str, sales: Sequence[str]) -> Order | None:
        """Find the order of an idempotency key, for a client that lost the answer.

        Returns None if there is none. Raises `NotReady` if Redis does not answer.
        """
        day = self._clock.now_ms() // DAY_MS
        try:
            records = await find_key_records(
                self._redis, [SaleKeys(sale) for sale in sales], day, user_id, idempotency_key
            )
        except REDIS_UNAVAILABLE as error:
            raise NotReady("cannot look up the order: Redis does not answer; repeat the request") from error
        order_id = next((record.order_id for record in records if record), None)
        if order_id is None:
            async with self._db.connection() as connection:
                order_id = await store.find_id_by_key(connection, user_id, idempotency_key)
        return await self.get(order_id, user_id, sales) if order_id else None

    async def list_orders(self, user_id: str, before: UUID | None, size: int) -> Page[OrderSummary]:
        """List the user's stored orders, newest first."""
        async with self._db.connection() as connection:
            orders = await store.list_before(connection, user_id, before or _LAST, size + 1)
        return to_page(orders, size, lambda order: str(order.order_id))

    async def list_events(self, order_id: UUID, user_id: str, sales: Sequence[str]) -> list[OrderEvent]:
        """List the events of the user's order. Until it is stored there is only its acceptance.

        Names of staff are hidden from the customer.
        """
        events = await self._read_events(await self.get(order_id, user_id, sales))
        return [
            replace(event, actor="staff") if event.actor.startswith(("staff ", "cli ")) else event for event in events
        ]

    async def _read_events(self, order: Order) -> list[OrderEvent]:
        async with self._db.connection() as connection:
            events = await store.list_events(connection, order.order_id)
        if events:
            return events
        at = order.accepted_at or from_ms(self._clock.now_ms())
        return [OrderEvent(0, at, OrderStatus.ACCEPTED, "customer", "the stock was reserved")]

    async def has_open_matters(self, order_id: UUID) -> bool:
        """Tell whether a refund, a cancellation or a case of the order is still open."""
        async with self._db.connection() as connection:
            return await has_open_matters(connection, order_id)

    async def latest_event_seqs(self, order_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return the seq of the last event by order, for orders that are stored."""
        async with self._db.connection() as connection:
            return await store.latest_event_seqs(connection, order_ids)

    async def cancel(
        self, order_id: UUID, actor: Actor, sales: Sequence[str], wait_s: float, reason: str = _CANCELLED_BY_CUSTOMER
    ) -> Order:
        """Cancel an unpaid order and release its stock and limit. A repeat returns the same answer.

        Waits for `wait_s` seconds at most until the writer has stored the order. Raises `NoSuchOrder`, `NotStoredYet`,
        or `CannotCancel` if it is paid or dead-lettered.
        """
        deadline = self._clock.monotonic() + wait_s
        while (order := (await self._find(order_id, actor.user_id, sales))[1]).status is OrderStatus.ACCEPTED:
            if self._clock.monotonic() >= deadline:
                if actor.user_id is None and await self._is_dead_lettered(order_id):
                    raise CannotCancel("cannot cancel the order: it is dead-lettered; discard the dead letter instead")
                raise NotStoredYet("cannot cancel the order: it is not stored yet; repeat the request in a moment")
            await asyncio.sleep(_POLL_INTERVAL_S)
        if order.status is OrderStatus.CANCELLED:
            return order
        if order.status is OrderStatus.AWAITING_PAYMENT:
            now, cause = from_ms(self._clock.now_ms()), "by_staff" if actor.user_id is None else "by_customer"
            async with self._db.transaction() as connection:
                is_cancelled = await store.cancel(connection, [order_id], now, cause, actor.name, reason)
            order = (await self._find(order_id, actor.user_id, sales))[1]
            if is_cancelled:
                return order
        if order.status is not OrderStatus.CANCELLED:
            raise CannotCancel(f"cannot cancel the order: it is {order.status}")
        return order

    async def _is_dead_lettered(self, order_id: UUID) -> bool:
        async with self._db.connection() as connection:
            return await dead_letters.get(connection, order_id) is not None
