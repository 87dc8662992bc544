"""The rows of shipments, their bookings and what happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.shipping.carrier_port import ContentLine
from commerce.shipping.model import Shipment, ShipmentEvent, ShipmentLineView, ShipmentStatus, Task, Then
from commerce.shipping.records import (
    FulfilmentTotals,
    NewShipment,
    NewShipmentEvent,
    PackageSize,
    ShipmentLine,
)

queries = load_queries(__package__)
_FIELDS = Shipment.__struct_fields__
MOST_EVENTS = 1_000


def read_shipment(row: Any) -> Shipment:
    """A whole row of `shipments`."""
    values = {name: row[name] for name in _FIELDS}
    values["status"] = ShipmentStatus(values["status"])
    values["address"] = msgspec.json.decode(values["address"], type=Address)
    if values["next_address"] is not None:
        values["next_address"] = msgspec.json.decode(values["next_address"], type=Address)
    if values["carrier_choice"] is not None:
        values["carrier_choice"] = msgspec.json.decode(values["carrier_choice"])
    return Shipment(**values)


# Orders that are to be sent.


async def order_handed_over(connection: Connection, order_id: UUID, now: datetime) -> None:
    """All of it has left, for the first time or again."""
    await connection.execute(queries.fulfilment_handed_over, order_id, now)


async def order_delivered(connection: Connection, order_id: UUID, now: datetime, over_at: datetime) -> None:
    """All of it has arrived."""
    await connection.execute(queries.fulfilment_delivered, order_id, now, over_at)


async def couriers_collect(connection: Connection, order_id: UUID) -> bool:
    """Whether there are parcels, not at their end yet, that bring cash."""
    found: bool = await connection.fetchval(queries.couriers_collect, order_id)
    return found


async def goods_sums(connection: Connection, order_id: UUID) -> FulfilmentTotals:
    row = await connection.fetchrow(queries.goods_sums, order_id)
    assert row is not None
    return FulfilmentTotals(*(row[name] or 0 for name in FulfilmentTotals._fields))


async def some_are_open(connection: Connection, order_id: UUID) -> bool:
    """Whether parcels of the order have not ended."""
    found: bool = await connection.fetchval(queries.some_are_open, order_id)
    return found


async def update_fulfilment_lines(
    connection: Connection, shipment_id: UUID, *, planned: int = 0, shipped: int = 0, delivered: int = 0
) -> None:
    """Count what a parcel holds: each 1, 0 or -1 times."""
    await connection.execute(queries.move_goods, shipment_id, planned, shipped, delivered)


# Parcels.


async def add_parcel(connection: Connection, parcel: NewShipment, now: datetime) -> None:
    """A planned shipment with what it holds, counted."""
    address = msgspec.json.encode(parcel.address).decode()
    await connection.execute(
        queries.add_shipment,
        *(parcel.shipment_id, parcel.order_id, parcel.address_no, parcel.warehouse_id, address, *parcel.measures),
        *(parcel.value_minor, parcel.cod_minor, parcel.currency, parcel.promised_on, now, parcel.replaces),
    )
    await put_lines(connection, parcel.shipment_id, parcel.order_id, parcel.lines)
    await update_fulfilment_lines(connection, parcel.shipment_id, planned=1)


async def put_lines(connection: Connection, shipment_id: UUID, order_id: UUID, lines: Sequence[ShipmentLine]) -> None:
    columns = list(zip(*lines, strict=True))
    await connection.execute(queries.add_shipment_lines, shipment_id, order_id, *columns)


async def drop_lines(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.drop_shipment_lines, shipment_id)


async def resize(connection: Connection, shipment_id: UUID, measures: PackageSize, value: int, cod: int) -> None:
    await connection.execute(queries.resize, shipment_id, *measures, value, cod)


async def shipment(connection: Connection, shipment_id: UUID) -> Shipment | None:
    row = await connection.fetchrow(queries.shipment, shipment_id)
    return read_shipment(row) if row else None


async def shipments_of(connection: Connection, order_id: UUID) -> list[Shipment]:
    return [read_shipment(row) for row in await connection.fetch(queries.shipments_of, order_id)]


async def lines_of(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, list[ShipmentLine]]:
    lines: dict[UUID, list[ShipmentLine]] = {id_: [] for id_ in shipment_ids}
    for shipment_id, *line in await connection.fetch(queries.lines_of, shipment_ids):
        lines[shipment_id].append(ShipmentLine(*line))
    return lines


def shown(lines: Sequence[ShipmentLine]) -> list[ShipmentLineView]:
    return [ShipmentLineView(line.line_no, line.sku, line.quantity) for line in lines]


async def contents(connection: Connection, shipment_id: UUID) -> list[ContentLine]:
    return [ContentLine(row["name"], row["quantity"]) for row in await connection.fetch(queries.contents, shipment_id)]


async def find_by_tracking_no(connection: Connection, carrier: str, tracking_no: str) -> tuple[UUID, UUID] | None:
    """(order, parcel) that a carrier's number stands for, or stood for."""
    row = await connection.fetchrow(queries.by_number, carrier, tracking_no)
    return (row["order_id"], row["shipment_id"]) if row else None


# Jobs.


async def claim(
    connection: Connection, now: datetime, lease_s: int, count: int, without: Sequence[str], down: Sequence[str]
) -> list[Shipment]:
    """Due parcels, except those of some carriers; of those that are `down`, the ones that somebody else may get."""
    rows = await connection.fetch(queries.claim_shipments, now, lease_s, count, without, down)
    return [read_shipment(row) for row in rows]


async def postpone(connection: Connection, job: Shipment, due_at: datetime, why: str, *, park: bool) -> None:
    await connection.execute(queries.postpone, job.shipment_id, due_at, why[:500], park, job.task)


async def set_task(
    connection: Connection, shipment_id: UUID, task: Task | None, due_at: datetime, then: Then | None = None
) -> None:
    await connection.execute(queries.set_task, shipment_id, task, then, due_at)


async def schedule_poll(connection: Connection, shipment_id: UUID, due_at: datetime) -> None:
    await connection.execute(queries.looked, shipment_id, due_at)


async def record_refusal(connection: Connection, shipment_id: UUID, carrier: str) -> None:
    await connection.execute(queries.tried, shipment_id, carrier)


async def forget_tried(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.forget_tried, shipment_id)


# Bookings.


async def add_booking(connection: Connection, booking_id: UUID, shipment_id: UUID, carrier: str, now: datetime) -> None:
    """Before the carrier is asked."""
    await connection.execute(queries.add_booking, booking_id, shipment_id, carrier, now)
    await connection.execute(queries.is_asked, shipment_id, booking_id)


async def touch_booking_request(connection: Connection, booking_id: UUID, now: datetime) -> None:
    await connection.execute(queries.asked_again, booking_id, now)


async def asked_at(connection: Connection, booking_id: UUID) -> datetime:
    found: datetime = await connection.fetchval(queries.asked_at, booking_id)
    return found


async def end_booking(connection: Connection, booking_id: UUID, outcome: str, now: datetime, why: str) -> None:
    await connection.execute(queries.end_booking, booking_id, outcome, now, why[:500])


async def book(
    connection: Connection, shipment_id: UUID, booking_id: UUID, number: str, sort_code: str | None, now: datetime
) -> None:
    await connection.execute(queries.booking_stands, booking_id, number)
    await connection.execute(queries.book, shipment_id, number, sort_code, now, booking_id)


async def unbook(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.unbook, shipment_id)


async def redirect(connection: Connection, shipment_id: UUID, address: Address, *, later: bool) -> None:
    query = queries.redirect_later if later else queries.redirect
    await connection.execute(query, shipment_id, msgspec.json.encode(address).decode())


# What happened.


async def known_news(connection: Connection, shipment_id: UUID, keys: Sequence[bytes]) -> set[bytes]:
    return {row["event_key"] for row in await connection.fetch(queries.known_news, shipment_id, keys)}


async def write_events(
    connection: Connection, order_id: UUID, shipment_id: UUID, events: Sequence[NewShipmentEvent], now: datetime
) -> None:
    """Events in their order, and with each the step that it is. Call with the order locked."""
    seq = await connection.fetchval(queries.count_news, order_id, len(events)) - len(events)
    for event in events:
        seq += 1
        from_, to = event.move or (None, None)
        if event.move:
            await connection.execute(queries.step, shipment_id, from_, to, seq, event.at)
        await connection.execute(
            queries.add_event,
            *(order_id, seq, shipment_id, event.at, now, event.source, event.actor, from_, to, event.code),
            *(event.is_unknown_code, event.contradicts_history, event.place, event.text[:500], event.key),
        )


async def touch_last_event(connection: Connection, shipment_id: UUID, at: datetime) -> None:
    await connection.execute(queries.heard, shipment_id, at)


async def cash_collected(connection: Connection, order_id: UUID) -> int:
    """Minor units that carriers have said to have collected."""
    found: int = await connection.fetchval(queries.cash_collected, order_id)
    return found


def _event(row: Any) -> ShipmentEvent:
    status = ShipmentStatus(row["status"]) if row["status"] else None
    return ShipmentEvent(row["seq"], row["shipment_id"], row["at"], row["source"], row["text"], status, row["place"])


async def events_after(
    connection: Connection, order_id: UUID, seq: int, most: int = MOST_EVENTS
) -> list[ShipmentEvent]:
    return [_event(row) for row in await connection.fetch(queries.events_after, order_id, seq, most)]


async def events_of(connection: Connection, order_id: UUID, shipment_id: UUID) -> list[ShipmentEvent]:
    """Of one parcel, in the order in which things happened."""
    return [_event(row) for row in await connection.fetch(queries.events_of, order_id, shipment_id)]


async def progress(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    rows = await connection.fetch(queries.progress, list(order_ids))
    return {row["order_id"]: row["event_seq"] for row in rows}


async def known_notice(connection: Connection, system: str, notice_id: str) -> str | None:
    found: str | None = await connection.fetchval(queries.notice, system, notice_id)
    return found


async def add_notice(
    connection: Connection, system: str, notice_id: str, now: datetime, result: str, body: bytes
) -> None:
    await connection.execute(queries.add_notice, system, notice_id, now, result, body)
