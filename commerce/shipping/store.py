"""Rows of shipments, their bookings, their events, and carriers' webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.shipping.carrier_port import BookingConfirmation, ContentLine
from commerce.shipping.model import (
    AfterCancel,
    Shipment,
    ShipmentEvent,
    ShipmentLineView,
    ShipmentStatus,
    to_tracking_no,
)
from commerce.shipping.records import FulfilmentTotals, NewShipment, NewShipmentEvent, PackageSize, ShipmentLine

_COLUMNS = Shipment.__struct_fields__
queries = load_queries(__package__, shipments=_COLUMNS)
_MAX_TEXT_CHARACTERS = 500
MAX_EVENTS = 1_000
TRACKING_NO_CONSTRAINT = "bookings_carrier_tracking_no_key"


def read_shipment(row: Any) -> Shipment:
    """Convert a row with the columns `{shipments}`."""
    values = {column: row[column] for column in _COLUMNS}
    values["status"] = ShipmentStatus(values["status"])
    values["address"] = msgspec.json.decode(values["address"], type=Address)
    if values["next_address"] is not None:
        values["next_address"] = msgspec.json.decode(values["next_address"], type=Address)
    if values["carrier_choice"] is not None:
        values["carrier_choice"] = msgspec.json.decode(values["carrier_choice"])
    return Shipment(**values)


# Orders.


async def mark_handed_over(connection: Connection, order_id: UUID, now: datetime) -> None:
    """Record that all units of an order are with carriers. Idempotent: keeps the first time."""
    await connection.execute(queries.mark_handed_over, order_id, now)


async def mark_delivered(connection: Connection, order_id: UUID, now: datetime) -> bool:
    """Record that all units of an order are delivered. Returns False if that is recorded already."""
    return await connection.fetchval(queries.mark_delivered, order_id, now) is not None


async def has_cash_shipments(connection: Connection, order_id: UUID) -> bool:
    """Return whether carriers are still to collect cash with shipments of an order."""
    exists: bool = await connection.fetchval(queries.has_cash_shipments, order_id)
    return exists


async def has_open_shipments(connection: Connection, order_id: UUID) -> bool:
    """Return whether an order has shipments without a final status."""
    exists: bool = await connection.fetchval(queries.has_open_shipments, order_id)
    return exists


async def get_fulfilment_totals(connection: Connection, order_id: UUID) -> FulfilmentTotals:
    row = await connection.fetchrow(queries.get_fulfilment_totals, order_id)
    assert row is not None
    return FulfilmentTotals(*(row[name] or 0 for name in FulfilmentTotals._fields))


async def update_fulfilment_lines(
    connection: Connection, shipment_id: UUID, *, planned: int = 0, shipped: int = 0, delivered: int = 0
) -> None:
    """Add the units of a shipment to the counts of its order lines, each times 1, 0 or -1."""
    await connection.execute(queries.update_fulfilment_lines, shipment_id, planned, shipped, delivered)


async def sum_cash_collected(connection: Connection, order_id: UUID) -> int:
    """Return the cash that carriers have collected for an order, in minor units."""
    amount_minor: int = await connection.fetchval(queries.sum_cash_collected, order_id)
    return amount_minor


# Shipments.


async def insert_shipment(connection: Connection, shipment: NewShipment, now: datetime) -> None:
    """Insert a planned shipment with its lines, and count its units as planned."""
    address = msgspec.json.encode(shipment.address).decode()
    await connection.execute(
        queries.insert_shipment,
        *(shipment.shipment_id, shipment.order_id, shipment.address_no, shipment.warehouse_id, address),
        *(*shipment.size, shipment.value_minor, shipment.cod_minor, shipment.currency, shipment.promised_on),
        *(now, shipment.replaces),
    )
    await insert_shipment_lines(connection, shipment.shipment_id, shipment.order_id, shipment.lines)
    await update_fulfilment_lines(connection, shipment.shipment_id, planned=1)


async def insert_shipment_lines(
    connection: Connection, shipment_id: UUID, order_id: UUID, lines: Sequence[ShipmentLine]
) -> None:
    columns = list(zip(*lines, strict=True))
    await connection.execute(queries.insert_shipment_lines, shipment_id, order_id, *columns)


async def delete_shipment_lines(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.delete_shipment_lines, shipment_id)


async def resize_shipment(
    connection: Connection, shipment_id: UUID, size: PackageSize, value_minor: int, cod_minor: int
) -> None:
    """Set a shipment's size, and its amounts in minor units, after its lines have changed."""
    await connection.execute(queries.resize_shipment, shipment_id, *size, value_minor, cod_minor)


async def get_shipment(connection: Connection, shipment_id: UUID) -> Shipment | None:
    row = await connection.fetchrow(queries.get_shipment, shipment_id)
    return read_shipment(row) if row else None


async def list_shipments(connection: Connection, order_id: UUID) -> list[Shipment]:
    return [read_shipment(row) for row in await connection.fetch(queries.list_shipments, order_id)]


async def list_shipment_lines(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, list[ShipmentLine]]:
    lines: dict[UUID, list[ShipmentLine]] = {shipment_id: [] for shipment_id in shipment_ids}
    for shipment_id, *line in await connection.fetch(queries.list_shipment_lines, shipment_ids):
        lines[shipment_id].append(ShipmentLine(*line))
    return lines


def make_line_views(lines: Sequence[ShipmentLine]) -> list[ShipmentLineView]:
    return [ShipmentLineView(line.line_no, line.sku, line.quantity) for line in lines]


async def list_contents(connection: Connection, shipment_id: UUID) -> list[ContentLine]:
    rows = await connection.fetch(queries.list_contents, shipment_id)
    return [ContentLine(row["name"], row["quantity"]) for row in rows]


async def find_by_tracking_no(connection: Connection, carrier: str, tracking_no: str) -> tuple[UUID, UUID] | None:
    """Return (order id, shipment id) of a present or earlier booking with this number.

    Any form of the number will do. Returns None if there is no such booking.
    """
    number = to_tracking_no(tracking_no)
    # Carriers and older versions of this shop may have written the letters small; the index knows what is written.
    row = await connection.fetchrow(queries.find_by_tracking_no, carrier, [number, tracking_no, number.lower()])
    return (row["order_id"], row["shipment_id"]) if row else None


# Jobs.


async def set_after_cancel(connection: Connection, shipment_id: UUID, after_cancel: AfterCancel | None) -> None:
    """Record the status that follows once the booking is cancelled; None: it is not being cancelled."""
    await connection.execute(queries.set_after_cancel, shipment_id, after_cancel)


async def begin_poll(connection: Connection, shipment_id: UUID, now: datetime, interval_s: float) -> datetime | None:
    """Record that a carrier is about to be polled, and return None.

    If the last poll is less than `interval_s` ago, nothing is recorded, and the result is when to poll."""
    if await connection.fetchval(queries.begin_poll, shipment_id, now, interval_s):
        return None
    polled_at: datetime = await connection.fetchval(queries.get_polled_at, shipment_id) or now
    return polled_at + timedelta(seconds=interval_s)


# Bookings.


async def insert_booking(
    connection: Connection, booking_id: UUID, shipment_id: UUID, carrier: str, now: datetime
) -> None:
    """Insert a booking as the shipment's current one. Commit before the request to the carrier."""
    await connection.execute(queries.insert_booking, booking_id, shipment_id, carrier, now)
    await connection.execute(queries.set_current_booking, shipment_id, booking_id)


async def touch_booking_request(connection: Connection, booking_id: UUID, now: datetime) -> None:
    """Record the time of a repeated request for a booking."""
    await connection.execute(queries.touch_booking_request, booking_id, now)


async def get_booking_requested_at(connection: Connection, booking_id: UUID) -> datetime:
    requested_at: datetime = await connection.fetchval(queries.get_booking_requested_at, booking_id)
    return requested_at


async def end_booking(
    connection: Connection, booking_id: UUID, outcome: Literal["refused", "cancelled"], now: datetime, reason: str
) -> None:
    await connection.execute(queries.end_booking, booking_id, outcome, now, reason[:_MAX_TEXT_CHARACTERS])


async def confirm_booking(
    connection: Connection, shipment_id: UUID, booking_id: UUID, confirmation: BookingConfirmation, now: datetime
) -> None:
    """Store a carrier's confirmation with the booking and the shipment.

    Raises `UniqueViolationError` if another booking of the carrier has the number."""
    await connection.execute(queries.confirm_booking, booking_id, confirmation.tracking_no)
    await connection.execute(
        queries.set_confirmation, shipment_id, confirmation.tracking_no, confirmation.sort_code, now, booking_id
    )


async def clear_booking(connection: Connection, shipment_id: UUID) -> None:
    """Remove the ended booking from its shipment, which is no longer packed either: its label is void."""
    await connection.execute(queries.clear_booking, shipment_id)


async def lock_orders_of_shipments(connection: Connection, shipment_ids: Sequence[UUID]) -> None:
    """Lock the orders of shipments until the transaction ends."""
    await connection.execute(queries.lock_orders_of_shipments, shipment_ids)


async def list_orders_of_shipments(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the order ids by shipment id; unknown shipments are left out."""
    rows = await connection.fetch(queries.list_orders_of_shipments, shipment_ids)
    return {row["shipment_id"]: row["order_id"] for row in rows}


async def record_refusal(connection: Connection, shipment_id: UUID, carrier: str) -> None:
    """Add a carrier to those that refused a shipment, and remove its booking."""
    await connection.execute(queries.record_refusal, shipment_id, carrier)


async def clear_refusals(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.clear_refusals, shipment_id)


async def redirect_shipment(connection: Connection, shipment_id: UUID, address: Address, *, later: bool) -> None:
    """Change a shipment's address now, or `later`, once its booking is cancelled."""
    query = queries.redirect_later if later else queries.redirect_now
    await connection.execute(query, shipment_id, msgspec.json.encode(address).decode())


# Events.


async def list_stored_event_keys(connection: Connection, shipment_id: UUID, keys: Sequence[bytes]) -> set[bytes]:
    """Return those of the keys that a shipment's events have already."""
    rows = await connection.fetch(queries.list_stored_event_keys, shipment_id, keys)
    return {row["event_key"] for row in rows}


async def insert_events(
    connection: Connection, order_id: UUID, shipment_id: UUID, events: Sequence[NewShipmentEvent], now: datetime
) -> None:
    """Insert events in their order, and advance the status by their steps.

    Call inside a transaction that holds the order lock."""
    seq = await connection.fetchval(queries.advance_event_seq, order_id, len(events)) - len(events)
    for event in events:
        seq += 1
        from_status, to_status = event.step or (None, None)
        if event.step:
            await connection.execute(
                queries.advance_shipment_status, shipment_id, from_status, to_status, seq, event.at
            )
        await connection.execute(
            queries.insert_event,
            *(order_id, seq, shipment_id, event.at, now, event.source, event.actor, from_status, to_status),
            *(event.code, event.is_unknown_code, event.contradicts_history, event.place),
            *(event.text[:_MAX_TEXT_CHARACTERS], event.key),
        )


async def touch_last_event(connection: Connection, shipment_id: UUID, at: datetime) -> None:
    await connection.execute(queries.touch_last_event, shipment_id, at)


def _event(row: Any) -> ShipmentEvent:
    return ShipmentEvent(
        seq=row["seq"],
        shipment_id=row["shipment_id"],
        at=row["at"],
        source=row["source"],
        text=row["text"],
        status=ShipmentStatus(row["status"]) if row["status"] else None,
        place=row["place"],
    )


async def list_events_after(
    connection: Connection, order_id: UUID, seq: int, max_events: int = MAX_EVENTS
) -> list[ShipmentEvent]:
    """List an order's events with a greater seq, in the order in which they were stored."""
    return [_event(row) for row in await connection.fetch(queries.list_events_after, order_id, seq, max_events)]


async def list_shipment_events(connection: Connection, order_id: UUID, shipment_id: UUID) -> list[ShipmentEvent]:
    """List a shipment's events in the order in which they happened."""
    return [_event(row) for row in await connection.fetch(queries.list_shipment_events, order_id, shipment_id)]


async def latest_event_seqs(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the seq of the last event of each of these orders that has a fulfilment."""
    rows = await connection.fetch(queries.latest_event_seqs, list(order_ids))
    return {row["order_id"]: row["event_seq"] for row in rows}


# Webhooks.


async def get_webhook_result(connection: Connection, system: str, webhook_id: str) -> str | None:
    """Return the result of a webhook that was stored before, else None."""
    result: str | None = await connection.fetchval(queries.get_webhook_result, system, webhook_id)
    return result


async def insert_webhook(
    connection: Connection,
    system: str,
    webhook_id: str,
    now: datetime,
    result: str,
    body: bytes,
    shipment_ids: Sequence[UUID],
) -> None:
    """Store a webhook with its result; the first one of an id stays."""
    await connection.execute(queries.insert_webhook, system, webhook_id, now, result, body, list(shipment_ids))
