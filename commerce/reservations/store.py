"""Rows of releases, of whole orders and in parts, and of reacquisitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

import orjson

from commerce.jobs import store as jobs
from commerce.kernel.clock import to_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders import store as orders
from commerce.orders.model import SOLD_AND_UNDELIVERED, OrderStatus
from commerce.reservations.errors import UnitsNotLeft

queries = load_queries(__package__)


@dataclass(frozen=True, slots=True)
class PendingRelease:
    """A release that is not marked as applied. Of `units`, those written off return to the limit only."""

    release_id: UUID
    sale_id: str
    user_id: str
    units: dict[str, int]
    written_off: dict[str, int]
    created_ms: int


async def get_pending(connection: Connection, release_ids: Sequence[UUID]) -> list[PendingRelease]:
    """Read those of the releases that are pending."""
    rows = await connection.fetch(queries.get_pending, release_ids)
    return [
        PendingRelease(
            release_id=row["release_id"],
            sale_id=row["sale_id"],
            user_id=row["user_id"],
            units=orjson.loads(row["units"]),
            written_off=orjson.loads(row["written_off"]),
            created_ms=to_ms(row["created_at"]),
        )
        for row in rows
    ]


async def mark_applied(
    connection: Connection, sale_id: str, epoch: int, applied: Sequence[tuple[UUID, int]], now: datetime
) -> bool:
    """Mark releases as applied in Redis, given as (id, seq), and finish their jobs.

    Call inside a transaction. Returns False if some were not pending, or if a newer load has begun; that load then
    applies them.
    """
    if await connection.fetchval(queries.lock_epoch, sale_id) != epoch:
        return False
    ids, seqs = [id_ for id_, _ in applied], [seq for _, seq in applied]
    return int(await connection.fetchval(queries.mark_applied, ids, seqs, now, epoch)) == len(applied)


class NewRelease(NamedTuple):
    """Units by SKU to release. `part_of` is the order of a partial one, whose id is its own.

    Of the units, those written off return to the limit and not to the stock."""

    release_id: UUID
    part_of: UUID | None
    units: Mapping[str, int]
    written_off: Mapping[str, int]
    reason: str


async def cancel_sold(
    connection: Connection,
    order: orders.OrderHeader,
    now: datetime,
    cause: str,
    actor: str,
    reason: str,
    written_off: Mapping[str, int] | None = None,
) -> None:
    """Cancel a locked order that was sold and not delivered, and release all that is left of it.

    Its status is paid, confirmed, fulfilling or shipped. What is left includes its coupons, and not what partial
    releases have taken; of these units, `written_off` do not return to stock. Its payments and shipments are the
    caller's. Call inside the transaction that locked the order. Raises `UnitsNotLeft` if it has another status, or if
    more is to be written off than is left.
    """
    if order.status not in SOLD_AND_UNDELIVERED or cause == "expired":
        raise UnitsNotLeft(f"order {order.order_id} is {order.status}: it cannot be cancelled any more")
    values = (order.order_id, order.status, cause, now, actor, reason)
    if await connection.execute(queries.cancel_sold, *values) != "INSERT 0 1":
        raise UnitsNotLeft(f"order {order.order_id} is {order.status} no more: read it again")
    jobs.wake_waiters_after_commit(connection, order.order_id)
    left = await read_units_left(connection, order.order_id)
    _check_parts(written_off or {}, left, f"order {order.order_id} has left")
    if left:
        release_id, part_of = order.order_id, None
        if await connection.fetchval(queries.has_release, order.order_id):  # it expired, and was paid late
            release_id, part_of = uuid5(order.order_id, "cancelled again"), order.order_id
        release = NewRelease(release_id, part_of, left, written_off or {}, reason)
        await insert_release(connection, order.sale_id, order.user_id, release, now)


async def read_units_left(connection: Connection, order_id: UUID) -> dict[str, int]:
    """Return the units of an order by SKU that no release has taken from it, with its coupons."""
    return {row["sku"]: row["units"] for row in await connection.fetch(queries.read_units_left, order_id)}


async def insert_release(
    connection: Connection, sale_id: str, user_id: str, release: NewRelease, now: datetime
) -> None:
    """Insert a release with its job. Call inside a transaction that holds the lock of its order."""
    units, written_off = orjson.dumps(release.units).decode(), orjson.dumps(release.written_off).decode()
    values = (release.release_id, sale_id, user_id, units, written_off, release.reason, release.part_of, now)
    await connection.execute(queries.insert_release, *values)
    jobs.wake_after_commit(connection, "releases")


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Units by SKU that leave a sold order, while its other units stay.

    All of them return to the customer's limit, and to stock those that are not `written_off`. `release_id` is the
    caller's: of the cancellation, case or inspection that decides it, and never the order's."""

    release_id: UUID
    order_id: UUID
    units: Mapping[str, int]
    reason: str
    written_off: Mapping[str, int] = field(default_factory=dict)


async def give_back(connection: Connection, request: GiveBack, now: datetime) -> bool:
    """Release a part of a sold order, once per release id. Returns False if that was done before.

    Call inside a transaction, that of the decision; the order is locked until it ends. Units that are 0 are left out.
    Raises `UnitsNotLeft` if the order has fewer units that no other release has taken, if it is not sold, or if the
    id was used for something else; and if more are written off than leave.
    """
    units = {sku: count for sku, count in request.units.items() if count}
    written_off = {sku: count for sku, count in request.written_off.items() if count}
    order = await orders.lock_order(connection, request.order_id)
    row = await connection.fetchrow(queries.get_partial, request.release_id)
    if row is not None:
        before = row["part_of"], orjson.loads(row["units"]), orjson.loads(row["written_off"])
        if before != (request.order_id, units, written_off):
            raise UnitsNotLeft(f"release {request.release_id} released other units: use another id")
        return False
    if order is None or request.release_id == request.order_id:
        raise UnitsNotLeft(f"there is no order {request.order_id} of which a part can be released")
    if order.status in (OrderStatus.AWAITING_PAYMENT, OrderStatus.CANCELLED):
        raise UnitsNotLeft(
            f"order {request.order_id} is {order.status}: its units are not sold, so no part of them is released"
        )
    left = await read_units_left(connection, request.order_id)
    _check_parts(units, left, f"order {request.order_id} has left")
    _check_parts(written_off, units, "of those to be released there are")
    if not units:
        return False
    release = NewRelease(request.release_id, request.order_id, units, written_off, request.reason)
    await insert_release(connection, order.sale_id, order.user_id, release, now)
    return True


def _check_parts(units: Mapping[str, int], whole: Mapping[str, int], holder: str) -> None:
    """Raise `UnitsNotLeft` unless these are units of the whole."""
    for sku, count in units.items():
        if not 0 < count <= whole.get(sku, 0):
            raise UnitsNotLeft(f"cannot release {count} of {sku}: {holder} {whole.get(sku, 0)}", sku=sku)


@dataclass(frozen=True, slots=True)
class ReacquireJob:
    """A reacquisition.

    `units` maps each SKU to the units and the limit per user (0: none), as they were in `sale_epoch`."""

    release_id: UUID
    sale_id: str
    user_id: str
    status: str
    created_ms: int
    units: dict[str, tuple[int, int]]
    sale_epoch: int


async def begin_reacquire(connection: Connection, id_: UUID, order_id: UUID, now: datetime) -> ReacquireJob | None:
    """Read the reacquisition of an order, or create it with the id `id_`. Call inside a transaction.

    Returns None while the order's release is not applied.
    """
    await connection.execute(queries.begin_reacquire, id_, order_id, now)
    row = await connection.fetchrow(queries.get_reacquire, order_id)
    if row is None:
        return None
    return ReacquireJob(
        release_id=row["release_id"],
        sale_id=row["sale_id"],
        user_id=row["user_id"],
        status=row["status"],
        created_ms=to_ms(row["created_at"]),
        units={sku: (units, limit) for sku, (units, limit) in orjson.loads(row["units"]).items()},
        sale_epoch=row["sale_epoch"],
    )


async def refuse_reacquire(connection: Connection, sale_id: str, epoch: int, id_: UUID, now: datetime) -> bool:
    """Mark a reacquisition as refused by Redis. Call inside a transaction.

    Returns False if it was not pending, or if a newer load has begun: that load may have applied it.
    """
    if await connection.fetchval(queries.lock_epoch, sale_id) != epoch:
        return False
    return str(await connection.execute(queries.refuse_reacquire, id_, now)) == "UPDATE 1"
