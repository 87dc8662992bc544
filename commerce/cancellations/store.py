"""Rows of cancellations, and the counts of units that they change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from commerce.cancellations.decisions import LineUnits, OpenLine, OrderContents, ShipmentUnits
from commerce.cancellations.model import Cancellation, CancellationLine, Cause, LineKey
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.shipping import store as shipments
from commerce.shipping.model import UNDELIVERED_STATUSES

queries = load_queries(__package__)


async def read_units(connection: Connection, order_id: UUID) -> OrderContents:
    """Read the units of an order, its shipments and its open cancellations."""
    lines = [LineUnits(**row) for row in await connection.fetch(queries.list_line_units, order_id)]
    rows = await shipments.list_shipments(connection, order_id)
    contents = await shipments.list_shipment_lines(connection, [shipment.shipment_id for shipment in rows])
    shipment_units = list[ShipmentUnits]()
    for shipment in rows:
        units = {(line.line_no, line.address_no): line for line in contents[shipment.shipment_id]}
        has_ended = shipment.status in UNDELIVERED_STATUSES
        undecided = {key: line.undecided for key, line in units.items()} if has_ended else {}
        shipment_units.append(ShipmentUnits(shipment, {key: line.quantity for key, line in units.items()}, undecided))
    open_lines = [
        OpenLine(id_, cause, (line_no, address_no), *counts)
        for id_, cause, line_no, address_no, *counts in await connection.fetch(queries.list_open_lines, order_id)
    ]
    return OrderContents({line.key: line for line in lines}, shipment_units, open_lines)


async def write_units(connection: Connection, order_id: UUID, units: OrderContents) -> None:
    """Write the counts of units in lines and open cancellations.

    Call inside a transaction that holds the order lock since they were read."""
    lines = [(*line.key, line.cancelled, line.cancelling) for line in units.lines.values()]
    await connection.execute(queries.set_cancelled_units, order_id, *_transpose(lines))
    if units.open_lines:
        rows = [
            (line.cancellation_id, *line.key, line.cancelled, line.kept, line.written_off) for line in units.open_lines
        ]
        await connection.execute(queries.update_lines, *_transpose(rows))


async def read_known_ends(connection: Connection, order_id: UUID) -> dict[UUID, datetime]:
    """Return when it became known that shipments of an order had ended, by shipment."""
    return {row["shipment_id"]: row["known_at"] for row in await connection.fetch(queries.list_ended_at, order_id)}


async def mark_plan_again(connection: Connection, shipment_ids: Collection[UUID]) -> None:
    """Note that units of these shipments that are still wanted are planned again once they are stopped."""
    await connection.execute(queries.mark_plan_again, list(shipment_ids))


async def insert(
    connection: Connection,
    cancellation_id: UUID,
    order_id: UUID,
    lines: Mapping[LineKey, int],
    *,
    cause: Cause,
    reason: str,
    actor: str,
    idempotency_key: str | None,
    is_whole: bool,
    now: datetime,
) -> None:
    """Insert an open cancellation with its units by line."""
    values = (cancellation_id, order_id, cause, reason, actor, idempotency_key, is_whole, now)
    await connection.execute(queries.insert_cancellation, *values)
    rows = [(*key, quantity) for key, quantity in lines.items()]
    await connection.execute(queries.insert_cancellation_lines, cancellation_id, order_id, *_transpose(rows))


async def find_by_key(connection: Connection, order_id: UUID, actor: str, key: str) -> tuple[UUID, bool] | None:
    """Return the cancellation of a key, and whether it was asked for without naming units."""
    row = await connection.fetchrow(queries.find_by_key, order_id, actor, key)
    return (row["cancellation_id"], row["is_whole"]) if row else None


async def find_latest(connection: Connection, order_id: UUID) -> UUID | None:
    """Return the last cancellation of an order, or None."""
    id_: UUID | None = await connection.fetchval(queries.find_latest, order_id)
    return id_


async def get(connection: Connection, cancellation_id: UUID) -> Cancellation:
    """Read a cancellation that exists."""
    [cancellation] = await list_cancellations(connection, [cancellation_id])
    return cancellation


async def list_cancellations(connection: Connection, ids: Sequence[UUID]) -> list[Cancellation]:
    """Read cancellations with their lines, oldest first."""
    lines: dict[UUID, list[CancellationLine]] = defaultdict(list)
    for id_, *line in await connection.fetch(queries.list_lines, ids):
        lines[id_].append(CancellationLine(*line))
    return [_cancellation(row, lines) for row in await connection.fetch(queries.list_cancellations, ids)]


async def list_of_order(connection: Connection, order_id: UUID) -> list[Cancellation]:
    """Read the cancellations of an order, oldest first."""
    rows = await connection.fetch(queries.list_cancellations_of_order, order_id)
    return await list_cancellations(connection, [row["cancellation_id"] for row in rows]) if rows else []


def _cancellation(row: Any, lines: Mapping[UUID, list[CancellationLine]]) -> Cancellation:
    return Cancellation(
        cancellation_id=row["cancellation_id"],
        order_id=row["order_id"],
        status=row["status"],
        cause=row["cause"],
        reason=row["reason"],
        actor=row["actor"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        lines=lines[row["cancellation_id"]],
    )


async def list_open(connection: Connection, count: int) -> list[tuple[Cancellation, str | None]]:
    """List up to `count` open cancellations, oldest first, with the last error of their shipments."""
    errors = {row["cancellation_id"]: row["last_error"] for row in await connection.fetch(queries.list_open, count)}
    cancellations = await list_cancellations(connection, list(errors)) if errors else []
    return [(cancellation, errors[cancellation.cancellation_id]) for cancellation in cancellations]


async def measure_open(connection: Connection, now: datetime) -> tuple[int, float]:
    """Return the number of open cancellations, and the age of the oldest in seconds."""
    row = await connection.fetchrow(queries.measure_open, now)
    assert row is not None
    return row["open"], row["oldest_s"] or 0.0


async def mark_done(connection: Connection, cancellation_id: UUID, now: datetime) -> None:
    await connection.execute(queries.mark_done, cancellation_id, now)


async def has_kept_units(connection: Connection, order_id: UUID) -> bool:
    """Tell whether units of an order were to be cancelled and had left."""
    has_kept: bool = await connection.fetchval(queries.has_kept_units, order_id)
    return has_kept


async def sum_refunded_without_units(connection: Connection, order_id: UUID) -> int:
    """Return what staff refunded without naming units, in minor units, less what was withheld for it."""
    amount_minor: int = await connection.fetchval(queries.sum_refunded_without_units, order_id)
    return amount_minor


async def end_fulfilment(connection: Connection, order_id: UUID) -> None:
    """Record that nothing of an order is to be shipped any more, and drop the job that plans it."""
    await connection.execute(queries.end_fulfilment, order_id)


def _transpose(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Turn rows into columns, for `unnest`."""
    return list(zip(*rows, strict=True))
