"""Stores accepted orders in Postgres, each as one order or one dead letter.

An order may be delivered several times.

The common case is two plain COPYs in a transaction. If they fail, the cause is removed: orders that are stored already
(their entry was delivered again after a crash) are dropped; an order whose idempotency key belongs to another order is
stored as refused and its stock is released; otherwise the batch is bisected until the bad order is alone.

A failed order becomes a dead letter only if the fault is its own. A defect of the program or of the schema fails every
order, and none of them may be blamed for it. The rule, for the failed orders of a batch whose errors are of
one kind:

1. If another order of the batch was stored, the fault is theirs.
2. If none was, and another order of the sale was stored since they became suspects (4), the fault is theirs.
3. If none was, and it is one order, the first of its kind since an order was stored, and a well-formed order can be
   stored (which is tried, and rolled back), the fault is its own.
4. Otherwise they are suspects: they stay in the stream and are tried again, until another order of the sale is stored
   (2) or the defect is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from commerce.dead_letters import store as dead_letters
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, safe_error_text
from commerce.kernel.stream_payload import (
    AcceptedLine,
    AcceptedOrder,
    StreamedOrder,
    decode_accepted,
    encode_accepted,
)
from commerce.orders import store
from commerce.orders.errors import OrdersNotStorable
from commerce.orders.model import OrderStatus, PersistResult
from lua import EntryId

_CONTENT_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)
"""Errors that the content of an order may cause; any other error is retried."""
_UNREADABLE = "unreadable"
_LOST = "Redis lost the order before it was stored, and the stock was counted without it"


class FailedOrder(NamedTuple):
    """An order that could not be stored, or not be decoded: then `order` is None.

    `kind` is that of its error.
    """

    order_id: UUID
    sale_id: str
    order: AcceptedOrder | None
    payload: bytes
    entry: EntryId
    kind: str
    error: str

    @classmethod
    def unreadable(cls, order_id: UUID, sale_id: str, payload: bytes, entry: EntryId, reason: str) -> FailedOrder:
        return cls(order_id, sale_id, None, payload, entry, _UNREADABLE, f"it cannot be read: {reason}")

    @classmethod
    def lost(cls, item: StreamedOrder) -> FailedOrder:
        order = item.order
        return cls(order.order_id, order.sale_id, order, item.payload, item.entry, _LOST, _LOST)


async def persist(connection: Connection, batch: Sequence[StreamedOrder], now: datetime) -> PersistResult:
    """Store a batch as `SalePersistence` does, without knowledge of earlier ones."""
    return await SalePersistence().persist(connection, batch, now)


class SalePersistence:
    """Stores the batches of one sale, and remembers what is needed to judge failed orders.

    Only what this process has stored is evidence: a process with another version of the program proves nothing about
    this one.
    """

    def __init__(self) -> None:
        self._stored = 0
        self._stored_when_suspected: dict[UUID, int] = {}
        self._first_of_kind: dict[str, tuple[int, UUID]] = {}
        """the first failed order of each kind since an order was stored, with `_stored` then"""

    async def persist(
        self,
        connection: Connection,
        batch: Sequence[StreamedOrder],
        now: datetime,
        *,
        unreadable: Sequence[FailedOrder] = (),
        orders_per_transaction: int = 2_000,
    ) -> PersistResult:
        """Store a batch, of which some orders could not be decoded; a repeat stores nothing twice.

        Call `confirm` with the result after the commit. Raises `OrdersNotStorable` if there are suspects, else only
        errors that no order caused. Some orders may be stored then.
        """
        result, failed = PersistResult(), list(unreadable)
        for first in range(0, len(batch), orders_per_transaction):
            await _persist(connection, batch[first : first + orders_per_transaction], now, result, failed)
        if failed:
            await self._judge(connection, failed, now, result)
        return result

    def confirm(self, result: PersistResult, resolved: Iterable[UUID] = ()) -> None:
        """Count what was committed as evidence, and forget orders that are stored or dead letters."""
        self._stored += result.stored + len(result.refused)
        for order_id in resolved:
            self._stored_when_suspected.pop(order_id, None)

    async def _judge(
        self, connection: Connection, failed: Sequence[FailedOrder], now: datetime, result: PersistResult
    ) -> None:
        by_kind: dict[str, list[FailedOrder]] = defaultdict(list)
        for order in failed:
            by_kind[order.kind].append(order)
        suspects: list[FailedOrder] = []
        for kind, orders in by_kind.items():
            if not (result.stored or result.refused) and await self._are_suspects(connection, kind, orders, now):
                suspects += orders
                continue
            for order in orders:
                await insert_dead_letter(connection, order, now)
                result.dead_lettered[order.order_id] = order.error
        if suspects:
            raise OrdersNotStorable(
                f"cannot store {len(suspects)} orders, and none was stored that proves them wrong: "
                f"{suspects[0].error}; compare the versions of program and schema",
                result,
            )

    async def _are_suspects(
        self, connection: Connection, kind: str, orders: Sequence[FailedOrder], now: datetime
    ) -> bool:
        suspected = [self._stored_when_suspected.get(order.order_id) for order in orders]
        is_new = suspected == [None] * len(orders)
        if any(stored is not None and stored < self._stored for stored in suspected):
            return False
        this = (self._stored, orders[0].order_id)
        first = self._first_of_kind.get(kind, this)
        # The same order comes again, without being a suspect, if its dead letter was rolled back.
        is_first = first[0] != self._stored or first == this
        if is_first:
            self._first_of_kind[kind] = this
        if is_new and is_first and len(orders) == 1 and await _can_store(connection, orders[0], now):
            return False
        for order in orders:
            self._stored_when_suspected.setdefault(order.order_id, self._stored)
        return True


async def _persist(
    connection: Connection,
    batch: Sequence[StreamedOrder],
    now: datetime,
    result: PersistResult,
    failed: list[FailedOrder],
) -> None:
    if not batch:
        return
    try:
        async with connection.transaction():
            await store.copy_orders(connection, batch, now)
            await _confirm_free(connection, batch, now)
            failpoint("writer.before_commit")
        result.stored += len(batch)
        return
    except asyncpg.UniqueViolationError as error:
        failure: Exception = error
    except _CONTENT_ERRORS as error:
        failure = error
    if isinstance(failure, asyncpg.UniqueViolationError):
        try:
            remaining = await _drop_stored_and_refused(connection, batch, now, result)
        except _CONTENT_ERRORS as error:  # the search by keys meets a bad order too
            failure, remaining = error, batch
        if len(remaining) < len(batch):
            await _persist(connection, remaining, now, result, failed)
            return
    if len(batch) > 1:
        middle = len(batch) // 2
        await _persist(connection, batch[:middle], now, result, failed)
        await _persist(connection, batch[middle:], now, result, failed)
        return
    [item] = batch
    failed.append(
        FailedOrder(
            item.order.order_id,
            item.order.sale_id,
            item.order,
            item.payload,
            item.entry,
            _kind_of(failure),
            safe_error_text(failure),
        )
    )


async def _confirm_free(connection: Connection, batch: Sequence[StreamedOrder], now: datetime) -> None:
    """Mark orders paid whose total is 0: nobody can pay them, and they wait for nothing."""
    steps = [
        store.StatusStep(item.order.order_id, OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID, "there is nothing to pay")
        for item in batch
        if item.order.total_minor == 0
    ]
    await store.advance_statuses(connection, steps, now, "order_writer")


async def _drop_stored_and_refused(
    connection: Connection, batch: Sequence[StreamedOrder], now: datetime, result: PersistResult
) -> Sequence[StreamedOrder]:
    """Return the orders that are not stored, after storing those with a used key as refused."""
    stored_ids = await store.find_existing(connection, [item.order.order_id for item in batch])
    not_stored = [item for item in batch if item.order.order_id not in stored_ids]
    used_keys = await store.find_by_keys(connection, not_stored)
    result.duplicates += len(stored_ids)
    remaining = []
    for item in not_stored:
        if key_owner := used_keys.get((item.order.user_id, item.order.idempotency_key)):
            await _refuse(connection, item, key_owner, now)
            result.refused.append(item.order.order_id)
        else:
            remaining.append(item)
    return remaining


async def _refuse(connection: Connection, item: StreamedOrder, key_owner: UUID, now: datetime) -> None:
    """Store an order as cancelled because its key belongs to another order, and make its release due.

    Redis keeps the keys of one sale for a day or two. A key that is reused in another sale or much later is found here:
    there is still one order per key, and the events of the refused one contain the reason.
    """
    async with connection.transaction():
        await store.copy_orders(connection, [item], now, with_keys=False)
        reason = f"the Idempotency-Key {item.order.idempotency_key!r} belongs to order {key_owner}"
        await store.cancel(connection, [item.order.order_id], now, "refused", "order_writer", reason)


def _kind_of(error: Exception) -> str:
    """Name what two errors must share to be of one kind.

    The texts of Python's errors quote values, so they do not count.
    """
    if isinstance(error, asyncpg.PostgresError):
        return f"{type(error).__name__} {error.sqlstate} {error.constraint_name} {error.column_name}"
    return type(error).__name__


async def insert_dead_letter(
    connection: Connection, failed: FailedOrder, now: datetime, *, stock_lost: bool = False
) -> None:
    """Keep a failed order as a dead letter, with `stock_lost` as one that holds no units."""
    await dead_letters.insert(
        connection,
        order_id=failed.order_id,
        sale_id=failed.sale_id,
        order=failed.order,
        payload=failed.payload,
        error=failed.error,
        entry=failed.entry,
        now=now,
        stock_lost=stock_lost,
    )


async def _can_store(connection: Connection, failed: FailedOrder, now: datetime) -> bool:
    """Store a well-formed order under the id of a failed one, and roll it back."""
    order = AcceptedOrder(
        order_id=failed.order_id,
        user_id="probe",
        idempotency_key="probe",
        body_digest=bytes(16),
        sale_id="probe",
        generation=1,
        currency="CNY",
        total_minor=1,
        pay_within_s=60,
        ship_to="[]",
        payments="[]",
        lines=[AcceptedLine(0, 0, "probe", 1, 1)],
    )
    transaction = connection.transaction()
    await transaction.start()
    try:
        payload = encode_accepted(order)
        item = StreamedOrder(decode_accepted(payload), failed.entry, payload)
        await store.copy_orders(connection, [item], now, with_keys=False)
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except _CONTENT_ERRORS:
        return False
    finally:
        await transaction.rollback()
    return True
