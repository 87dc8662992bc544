"""What a person can do about a dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

from commerce.dead_letters import store
from commerce.dead_letters.errors import DeadLetterResolved, NoSuchDeadLetter
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.stream_payload import StreamedOrder, decode_accepted

_FIRST = UUID(int=0)


class PersistOutcome(Protocol):
    """The result of storing orders: errors by the ids of those that Postgres refused."""

    @property
    def dead_lettered(self) -> Mapping[UUID, str]: ...


PersistOrders = Callable[[Connection, Sequence[StreamedOrder], datetime], Awaitable[PersistOutcome]]


class DeadLetters:
    """Dead letters over Postgres. `persist` stores orders, as `commerce.orders.persistence.persist` does."""

    def __init__(self, db: Database, clock: Clock, persist: PersistOrders) -> None:
        self._db = db
        self._clock = clock
        self._persist = persist

    async def list_letters(self, after: UUID | None, size: int, resolved: bool = False) -> Page[DeadLetter]:
        """Those that are held; with `resolved` the others too."""
        async with self._db.connection() as connection:
            found = await store.list_after(connection, after or _FIRST, size + 1, resolved)
        return to_page(found, size, lambda letter: str(letter.order_id))

    async def get(self, order_id: UUID) -> DeadLetter:
        """One with the order it holds, or the bytes in hex if they cannot be read."""
        async with self._db.connection() as connection:
            held = await store.get(connection, order_id)
        if held is None:
            raise NoSuchDeadLetter(f"there is no dead letter {order_id}")
        return msgspec.structs.replace(held.letter, order=_readable(held.payload))

    async def retry(self, order_id: UUID, actor: str) -> DeadLetter:
        """Write the order now, in one transaction with the dead letter's end. Raises `Conflict` if it fails again."""
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            held = await self._lock(connection, order_id)
            try:
                order = decode_accepted(held.payload)
            except msgspec.MsgspecError as error:
                raise Conflict(f"the order still cannot be read: {error}") from None
            await store.resolve(connection, order_id, "retried", now, actor)
            result = await self._persist(connection, [StreamedOrder(order, held.entry, held.payload)], now)
            if result.dead_lettered:  # raising undoes all of this transaction, so the letter is held as before
                raise Conflict(f"the order still cannot be written: {result.dead_lettered[order_id]}")
        return await self.get(order_id)

    async def discard(self, order_id: UUID, actor: str) -> DeadLetter:
        """Give the order up: its goods and limit go back, and its owner sees it as cancelled."""
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            letter = (await self._lock(connection, order_id)).letter
            await store.resolve(connection, order_id, "discarded", now, actor)
            if letter.units:  # unreadable ones have none: what they took, if anything, is the audit's to find
                await store.release(connection, letter, f"the dead letter was discarded by {actor}", now)
        return await self.get(order_id)

    async def _lock(self, connection: Connection, order_id: UUID) -> store.StoredDeadLetter:
        held = await store.lock(connection, order_id)
        if held is None:
            raise NoSuchDeadLetter(f"there is no dead letter {order_id}")
        if held.letter.status != "held":
            raise DeadLetterResolved(f"it was {held.letter.status} by {held.letter.resolved_by}")
        return held


def _readable(payload: bytes) -> dict[str, Any]:
    try:
        order = decode_accepted(payload)
    except msgspec.MsgspecError:
        return {"unreadable": payload.hex()}
    shown: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(order))
    shown["lines"] = [msgspec.to_builtins(msgspec.structs.asdict(line)) for line in order.lines]
    shown["body_digest"] = order.body_digest.hex()
    return shown
