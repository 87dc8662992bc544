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
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.stream_payload import AcceptedOrder, StreamedOrder, decode_accepted
from lua import ReacquireOutcome, Reacquisition, SaleKeys, reacquire

_FIRST = UUID(int=0)


class PersistOutcome(Protocol):
    """The result of storing orders: errors by the ids of those that Postgres refused."""

    @property
    def dead_lettered(self) -> Mapping[UUID, str]: ...


PersistOrders = Callable[[Connection, Sequence[StreamedOrder], datetime], Awaitable[PersistOutcome]]


class DeadLetters:
    """Dead letters over Postgres. `persist` stores orders, as `commerce.orders.persistence.persist` does."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, persist: PersistOrders) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
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

        Raises `Conflict` if the order is refused again or its lost units are sold, `DeadLetterResolved` or
        `NoSuchDeadLetter`.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            stored = await self._lock(connection, order_id)
            try:
                order = decode_accepted(stored.payload)
            except msgspec.MsgspecError as error:
                raise Conflict(f"the order still cannot be read: {error}") from None
            if stored.letter.stock_lost:
                await self._reacquire_units(connection, stored.letter, order)
            await store.resolve(connection, order_id, "retried", now, actor)
            result = await self._persist(connection, [StreamedOrder(order, stored.entry, stored.payload)], now)
            if result.dead_lettered:  # raising rolls the transaction back, so the dead letter stays held
                raise Conflict(f"the order still cannot be stored: {result.dead_lettered[order_id]}")
        return await self.get(order_id)

    async def _reacquire_units(self, connection: Connection, letter: DeadLetter, order: AcceptedOrder) -> None:
        """Reacquire the units of an order from the present stock, once.

        Raises `Conflict` if that cannot be done.
        """
        locked_epoch = await store.lock_epoch(connection, letter.sale_id)  # no load begins until the order is stored
        limits = await store.read_limits(connection, letter.sale_id, [*order.units()])
        units = {sku: (count, limits.get(sku, 0)) for sku, count in order.units().items()}
        request = Reacquisition(order.order_id, to_ms(letter.died_at), order.user_id, units)
        try:
            epoch, outcome, _ = await reacquire(self._redis, SaleKeys(letter.sale_id), request)
        except REDIS_UNAVAILABLE:
            raise Conflict("cannot take the units of the order: Redis does not answer; retry later") from None
        match outcome:
            case ReacquireOutcome.REFUSED | ReacquireOutcome.TOO_OLD:
                raise Conflict("the units of the order are sold to others by now; discard it and tell the customer")
            case ReacquireOutcome.NOT_READY:
                raise Conflict(f"cannot take the units of the order: {letter.sale_id} is not loaded; retry later")
        if locked_epoch != epoch:
            raise Conflict(f"{letter.sale_id} was loaded again meanwhile; repeat the retry")

    async def discard(self, order_id: UUID, actor: str) -> DeadLetter:
        """Discard the order: its stock and limit are released, and the customer sees it as cancelled.

        Raises `DeadLetterResolved` or `NoSuchDeadLetter`.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            letter = (await self._lock(connection, order_id)).letter
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


def _decode_for_display(payload: bytes) -> dict[str, Any]:
    try:
        order = decode_accepted(payload)
    except msgspec.MsgspecError:
        return {"unreadable": payload.hex()}
    members: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(order))
    members["lines"] = [msgspec.to_builtins(msgspec.structs.asdict(line)) for line in order.lines]
    members["body_digest"] = order.body_digest.hex()
    return members
