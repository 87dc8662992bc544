"""Rows of receipts, surplus, inspections, and units that are sent back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.return_receipts.model import (
    InspectedLine,
    NewReceipt,
    Receipt,
    SendBack,
    SendBackOutcome,
    Surplus,
    SurplusDecision,
)

queries = load_queries(
    __package__,
    return_receipts=[field for field in Receipt.__struct_fields__ if field not in ("lines", "surplus")],
    return_surplus=Surplus.__struct_fields__,
    return_send_backs=SendBack.__struct_fields__,
)


class KeptUnits(NamedTuple):
    """Units of an order line that have come back and stay."""

    order_id: UUID
    line_no: int
    address_no: int
    kept: int


class NewSendBack(NamedTuple):
    """Units that are to go to the customer again: of a case line, or surplus."""

    send_back_id: UUID
    case_id: UUID | None
    case_line_no: int | None
    surplus_id: UUID | None
    quantity: int


class WorklistLengths(NamedTuple):
    """Lengths of the worklists, and since when the oldest return waits to be received, or to be inspected."""

    by_worklist: dict[str, int]
    oldest_arrival: datetime | None
    oldest_receipt: datetime | None


async def find_unknown(connection: Connection, skus: Collection[str]) -> list[str]:
    """Return those of the SKUs that the shop does not know."""
    return [row["sku"] for row in await connection.fetch(queries.list_unknown_skus, sorted(skus))]


async def has_warehouse(connection: Connection, warehouse_id: str) -> bool:
    exists: bool = await connection.fetchval(queries.has_warehouse, warehouse_id)
    return exists


async def insert_receipt(
    connection: Connection,
    receipt_id: UUID,
    receipt: NewReceipt,
    surplus_ids: Sequence[UUID],
    now: datetime,
    actor: str,
) -> None:
    """Insert a receipt with its lines and its surplus, which has an id each."""
    await connection.execute(
        queries.insert_receipt,
        *(receipt_id, receipt.case_id, receipt.return_shipment_id, receipt.warehouse_id, receipt.tracking_no),
        *(receipt.note, now, actor),
    )
    if receipt.lines:
        lines = list(receipt.lines), list(receipt.lines.values())
        await connection.execute(queries.insert_receipt_lines, receipt_id, receipt.case_id, *lines)
    if receipt.surplus:
        columns = zip(*receipt.surplus, strict=True)
        await connection.execute(queries.insert_surplus, receipt_id, list(surplus_ids), *map(list, columns))
    if receipt.return_shipment_id is not None:
        await mark_shipment_received(connection, receipt.return_shipment_id, now)


async def mark_shipment_received(connection: Connection, return_shipment_id: UUID, now: datetime) -> None:
    """Record when the warehouse first had a return shipment."""
    await connection.execute(queries.mark_shipment_received, return_shipment_id, now)


async def lock_receipt(connection: Connection, receipt_id: UUID) -> Receipt | None:
    """Read a receipt and lock its row until the transaction ends."""
    rows = await connection.fetch(queries.lock_receipt, receipt_id)
    return next(iter(await _read_receipts(connection, rows)), None)


async def get_receipt(connection: Connection, receipt_id: UUID) -> Receipt | None:
    rows = await connection.fetch(queries.get_receipts, [receipt_id])
    return next(iter(await _read_receipts(connection, rows)), None)


async def list_of_case(connection: Connection, case_id: UUID) -> list[Receipt]:
    """List the receipts of a case, oldest first."""
    return await _read_receipts(connection, await connection.fetch(queries.list_receipts_of_case, case_id))


async def list_unmatched(connection: Connection, after: UUID, warehouse_id: str | None, count: int) -> list[Receipt]:
    """List receipts that belong to no case and are not dealt with, oldest first."""
    rows = await connection.fetch(queries.list_unmatched, after, warehouse_id, count)
    return await _read_receipts(connection, rows)


async def _read_receipts(connection: Connection, rows: Sequence[Any]) -> list[Receipt]:
    ids = [row["receipt_id"] for row in rows]
    lines: dict[UUID, dict[int, int]] = {id_: {} for id_ in ids}
    surplus: dict[UUID, list[Surplus]] = {id_: [] for id_ in ids}
    if ids:
        for line in await connection.fetch(queries.list_receipt_lines, ids):
            lines[line["receipt_id"]][line["case_line_no"]] = line["quantity"]
        for row in await connection.fetch(queries.list_surplus_of_receipts, ids):
            surplus[row["receipt_id"]].append(_surplus(row))
    return [Receipt(**dict(row), lines=lines[row["receipt_id"]], surplus=surplus[row["receipt_id"]]) for row in rows]


def _surplus(row: Any) -> Surplus:
    return msgspec.convert(dict(row), Surplus)


async def get_surplus(connection: Connection, surplus_id: UUID) -> Surplus | None:
    row = await connection.fetchrow(queries.get_surplus, surplus_id)
    return _surplus(row) if row else None


async def list_undecided(connection: Connection, after: UUID, count: int) -> list[Surplus]:
    """List surplus that nobody has decided on, oldest first."""
    return [_surplus(row) for row in await connection.fetch(queries.list_undecided, after, count)]


async def decide_surplus(
    connection: Connection,
    surplus_id: UUID,
    decision: SurplusDecision,
    other_case_id: UUID | None,
    reason: str,
    now: datetime,
    actor: str,
) -> bool:
    """Store a decision on surplus. Returns False if there is one already."""
    values = surplus_id, decision, other_case_id, reason, now, actor
    return await connection.fetchval(queries.decide_surplus, *values) is not None


async def close_receipt(
    connection: Connection, receipt_id: UUID, resolution: str | None, now: datetime, actor: str
) -> None:
    """Take a receipt of no case off the worklist, unless some of its surplus is undecided."""
    await connection.execute(queries.close_receipt, receipt_id, now, actor, resolution)


async def insert_inspections(
    connection: Connection, case_id: UUID, lines: Sequence[InspectedLine], now: datetime, actor: str
) -> None:
    """Store what an inspection found, as the next revision of each line."""
    await connection.execute(queries.insert_inspections, case_id, now, actor, *map(list, zip(*lines, strict=True)))


async def add_returned_units(connection: Connection, units: Sequence[KeptUnits]) -> None:
    """Count units as returned at their order lines. Call inside a transaction that holds the order lock."""
    if units:
        await connection.execute(queries.add_returned_units, *map(list, zip(*units, strict=True)))


async def insert_send_backs(connection: Connection, send_backs: Sequence[NewSendBack], now: datetime) -> None:
    if send_backs:
        await connection.execute(queries.insert_send_backs, now, *map(list, zip(*send_backs, strict=True)))


async def end_send_back(
    connection: Connection,
    send_back_id: UUID,
    outcome: SendBackOutcome,
    carrier: str | None,
    tracking_no: str | None,
    now: datetime,
    actor: str,
) -> bool:
    """Record that units went to the customer again. Returns False if that is recorded already."""
    values = send_back_id, outcome, carrier, tracking_no, now, actor
    return await connection.fetchval(queries.end_send_back, *values) is not None


async def get_send_back(connection: Connection, send_back_id: UUID) -> SendBack | None:
    row = await connection.fetchrow(queries.get_send_back, send_back_id)
    return msgspec.convert(dict(row), SendBack) if row else None


async def list_send_backs_of_case(connection: Connection, case_id: UUID) -> list[SendBack]:
    rows = await connection.fetch(queries.list_send_backs_of_case, case_id)
    return [msgspec.convert(dict(row), SendBack) for row in rows]


async def list_open_send_backs(connection: Connection, after: UUID, count: int) -> list[SendBack]:
    """List units that are still to go to their customers, oldest first."""
    rows = await connection.fetch(queries.list_open_send_backs, after, count)
    return [msgspec.convert(dict(row), SendBack) for row in rows]


async def list_expected(
    connection: Connection, after: UUID, warehouse_id: str | None, silent_since: datetime | None, count: int
) -> list[UUID]:
    """List return shipments that have not ended; with `silent_since` only those that are overdue."""
    rows = await connection.fetch(queries.list_expected, after, warehouse_id, silent_since, count)
    return [row["return_shipment_id"] for row in rows]


async def list_not_received(
    connection: Connection, after: UUID, warehouse_id: str | None, status: str, count: int
) -> list[UUID]:
    """List return shipments that are delivered, or lost, and of which nothing was received."""
    rows = await connection.fetch(queries.list_not_received, after, warehouse_id, status, count)
    return [row["return_shipment_id"] for row in rows]


async def list_parked(connection: Connection, after: UUID, count: int) -> list[UUID]:
    """List return shipments whose job was given up."""
    return [row["subject"] for row in await connection.fetch(queries.list_parked, after, count)]


async def count_worklists(connection: Connection, silent_since: datetime) -> WorklistLengths:
    row = await connection.fetchrow(queries.count_worklists, silent_since)
    assert row is not None
    counts = dict(row)
    oldest = counts.pop("oldest_arrival"), counts.pop("oldest_receipt")
    return WorklistLengths(counts, *oldest)
