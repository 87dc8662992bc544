"""Actions of staff on dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec
from redis.asyncio import Redis

from commerce.dead_letters import store
from commerce.dead_letters.errors import DeadLetterResolved, NoSuchDeadLetter
from commerce.dead_letters.lost_units import hold_units_of_retry, reacquire_units, return_units_of_retry
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.stream_payload import AcceptedOrder, StreamedOrder, decode_accepted

_FIRST = UUID(int=0)


class PersistOutcome(Protocol):
    """The result of storing orders: errors by the ids of those that Postgres refused.

    `duplicates` counts orders that were stored before.
    """

    @property
    def duplicates(self) -> int: ...

    @property
    def dead_lettered(self) -> Mapping[UUID, str]: ...


PersistOrders = Callable[[Connection, Sequence[StreamedOrder], datetime], Awaitable[PersistOutcome]]


class DeadLetters:
    """Dead letters over Postgres. `persist` stores orders, as `commerce.orders.persistence.persist` does."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, persist: PersistOrders) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ids = IdGenerator(clock)
        self._persist = persist

    async def list_letters(self, after: UUID | None, size: int, resolved: bool = False) -> Page[DeadLetter]:
        """List held dead letters by id; with `resolved`, all dead letters."""
        async with self._db.connection() as connection:
            letters = await store.list_after(connection, after or _FIRST, size + 1, resolved)
        return to_page(letters, size, lambda letter: str(letter.order_id))

    async def get(self, order_id: UUID) -> DeadLetter:
        """Read a dead letter with its order, or with the payload in hex if it cannot be decoded.

        Raises `NoSuchDeadLetter`.
        """
        async with self._db.connection() as connection:
            stored = await store.get(connection, order_id)
        if stored is None:
            raise NoSuchDeadLetter(f"there is no dead letter {order_id}")
        return msgspec.structs.replace(stored.letter, order=_decode_for_display(stored.payload))

    async def retry(self, order_id: UUID, actor: str) -> DeadLetter:
        """Store the order and mark the dead letter retried, in one transaction.

        Raises `Conflict` if the order is refused again or its lost units cannot be taken, `DeadLetterResolved` or
        `NoSuchDeadLetter`.
        """
        now = from_ms(self._clock.now_ms())
        await self._begin_retry(order_id, now)
        refusal = None
        async with self._db.transaction() as connection:
            stored = await self._lock(connection, order_id)
            order = _read_order(stored)
            if not stored.letter.stock_lost:
                await self._store_order(connection, stored, order, now)
            elif await store.is_stored(connection, order_id):  # a gateway sent it again, and it has units of its own
                if stored.retry is not None:
                    await return_units_of_retry(connection, self._redis, stored, order)
            else:
                refusal = await reacquire_units(connection, self._redis, stored, order)
                if refusal is None:
                    await self._store_order(connection, stored, order, now)
            if refusal is None:
                await store.resolve(connection, order_id, "retried", now, actor)
        if refusal is not None:
            raise Conflict(refusal)
        return await self.get(order_id)

    async def _begin_retry(self, order_id: UUID, now: datetime) -> None:
        """Commit the id under which Redis is asked for lost units."""
        async with self._db.transaction() as connection:
            stored = await self._lock(connection, order_id)
            _read_order(stored)
            if stored.letter.stock_lost and not await store.is_stored(connection, order_id):
                await store.begin_retry(connection, order_id, self._ids.new(), now)

    async def _store_order(
        self, connection: Connection, stored: store.StoredDeadLetter, order: AcceptedOrder, now: datetime
    ) -> None:
        """Store the order. An error rolls the transaction back, so the dead letter stays held."""
        result = await self._persist(connection, [StreamedOrder(order, stored.entry, stored.payload)], now)
        if result.dead_lettered:
            raise Conflict(f"the order still cannot be stored: {result.dead_lettered[order.order_id]}")
        if result.duplicates and stored.letter.stock_lost:
            raise Conflict("the order was stored meanwhile, with units of its own; retry again to return these")

    async def discard(self, order_id: UUID, actor: str) -> DeadLetter:
        """Discard the order: its stock and limit are released, and the customer sees it as cancelled.

        Raises `Conflict` if the order was stored after all, or if it is unknown whether a retry has taken its units;
        `DeadLetterResolved` or `NoSuchDeadLetter`.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            stored = await self._lock(connection, order_id)
            letter = stored.letter
            if letter.stock_lost and await store.is_stored(connection, order_id):
                raise Conflict("cannot discard the order: it was stored after all; retry it, which takes no more units")
            if letter.stock_lost and stored.retry is not None:
                units = await hold_units_of_retry(connection, self._redis, stored, _read_order(stored))
                letter = msgspec.structs.replace(letter, units=units)
            await store.resolve(connection, order_id, "discarded", now, actor)
            if letter.units:  # an unreadable order has none: the audit reports its reserved units, if any
                await store.insert_release(connection, letter, f"the dead letter was discarded by {actor}", now)
        return await self.get(order_id)

    async def _lock(self, connection: Connection, order_id: UUID) -> store.StoredDeadLetter:
        stored = await store.lock(connection, order_id)
        if stored is None:
            raise NoSuchDeadLetter(f"there is no dead letter {order_id}")
        if stored.letter.status != "held":
            raise DeadLetterResolved(f"it was {stored.letter.status} by {stored.letter.resolved_by}")
        return stored


def _read_order(stored: store.StoredDeadLetter) -> AcceptedOrder:
    try:
        return decode_accepted(stored.payload)
    except msgspec.MsgspecError as error:
        raise Conflict(f"the order still cannot be read: {error}") from None


def _decode_for_display(payload: bytes) -> dict[str, Any]:
    try:
        order = decode_accepted(payload)
    except msgspec.MsgspecError:
        return {"unreadable": payload.hex()}
    members: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(order))
    members["lines"] = [msgspec.to_builtins(msgspec.structs.asdict(line)) for line in order.lines]
    members["body_digest"] = order.body_digest.hex()
    return members
