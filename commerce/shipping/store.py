"""Rows of shipments, their bookings, their events, and carriers' webhooks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Literal
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.shipping.carrier_port import ContentLine
from commerce.shipping.model import (
    AfterCancel,
    Shipment,
    ShipmentEvent,
    ShipmentLineView,
    ShipmentStatus,
    to_tracking_no,
)
from commerce.shipping.records import (
    CarrierNumber,
    ConfirmedBooking,
    FulfilmentTotals,
    NewBooking,
    NewHistory,
    NewShipment,
    NewShipmentEvent,
    NewWebhook,
    PackageSize,
    ShipmentKey,
    ShipmentLine,
    UnitMove,
)

_COLUMNS = Shipment.__struct_fields__
queries = load_queries(__package__, shipments=_COLUMNS)
_Row = tuple[Any, ...]
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


async def mark_handed_over(connection: Connection, order_ids: Sequence[UUID], now: datetime) -> None:
    """Record that all units of orders are with carriers. Idempotent: keeps the first time."""
    await connection.execute(queries.mark_handed_over, order_ids, now)


async def mark_delivered(connection: Connection, order_ids: Sequence[UUID], now: datetime) -> list[UUID]:
    """Record that all units of orders are delivered. Returns those of which that was not recorded yet."""
    return [row["order_id"] for row in await connection.fetch(queries.mark_delivered, order_ids, now)]


async def has_cash_shipments(connection: Connection, order_id: UUID) -> bool:
    """Return whether carriers are still to collect cash with shipments of an order."""
    return bool(await connection.fetchval(queries.has_cash_shipments, order_id))


async def has_open_shipments(connection: Connection, order_id: UUID) -> bool:
    """Return whether an order has shipments without a final status."""
    return bool(await connection.fetchval(queries.has_open_shipments, order_id))


async def get_fulfilment_totals(connection: Connection, order_id: UUID) -> FulfilmentTotals:
    return (await list_fulfilment_totals(connection, [order_id]))[order_id]


async def list_fulfilment_totals(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, FulfilmentTotals]:
    """Return the totals of orders by their ids."""
    rows = await connection.fetch(queries.get_fulfilment_totals, order_ids)
    return {row["order_id"]: FulfilmentTotals(*(row[name] or 0 for name in FulfilmentTotals._fields)) for row in rows}


async def sum_shipment_units(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the number of units in each of these shipments."""
    rows = await connection.fetch(queries.sum_shipment_units, shipment_ids)
    return {row["shipment_id"]: row["units"] for row in rows}


async def update_fulfilment_lines(connection: Connection, moves: Sequence[UnitMove]) -> None:
    """Add the units of shipments, one move of each, to the counts of their order lines."""
    await connection.execute(queries.update_fulfilment_lines, *_transpose(moves))


async def is_cash_final(connection: Connection, order_id: UUID) -> bool:
    """Return whether no more cash can be collected for an order because units of it were cancelled."""
    return bool(await connection.fetchval(queries.is_cash_final, order_id))


async def post_collected_cash(connection: Connection, order_ids: Sequence[UUID], now: datetime) -> None:
    """Post the cash of delivered shipments of orders to the ledger, each shipment once."""
    await connection.execute(queries.post_collected_cash, sorted(order_ids), now)


# Shipments.


async def insert_shipments(connection: Connection, shipments: Sequence[NewShipment], now: datetime) -> None:
    """Insert planned shipments with their lines, and count their units as planned."""
    rows = [
        (
            *(shipment.shipment_id, shipment.order_id, shipment.address_no, shipment.warehouse_id),
            *(msgspec.json.encode(shipment.address).decode(), *shipment.size),
            *(shipment.value_minor, shipment.cod_minor, shipment.currency, shipment.promised_on, shipment.replaces),
        )
        for shipment in shipments
    ]
    await connection.execute(queries.insert_shipments, now, *_transpose(rows))
    lines = [(shipment.shipment_id, shipment.order_id, *line[:4]) for shipment in shipments for line in shipment.lines]
    await connection.execute(queries.insert_shipment_lines, *_transpose(lines))
    await update_fulfilment_lines(connection, [UnitMove(shipment.shipment_id, planned=1) for shipment in shipments])


async def insert_shipment_lines(
    connection: Connection, shipment_id: UUID, order_id: UUID, lines: Sequence[ShipmentLine]
) -> None:
    rows = [(shipment_id, order_id, *line[:4]) for line in lines]
    await connection.execute(queries.insert_shipment_lines, *_transpose(rows))


async def delete_shipment_lines(connection: Connection, shipment_id: UUID) -> None:
    await connection.execute(queries.delete_shipment_lines, shipment_id)


async def resize_shipment(
    connection: Connection, shipment_id: UUID, size: PackageSize, value_minor: int, cod_minor: int
) -> None:
    """Set a shipment's size, and its amounts in minor units, after its lines have changed."""
    await connection.execute(queries.resize_shipment, shipment_id, *size, value_minor, cod_minor)


async def get_shipment(connection: Connection, shipment_id: UUID) -> Shipment | None:
    return (await get_shipments(connection, [shipment_id])).get(shipment_id)


async def get_shipments(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, Shipment]:
    """Return those of the shipments that exist, by their ids."""
    rows = await connection.fetch(queries.get_shipments, shipment_ids)
    return {row["shipment_id"]: read_shipment(row) for row in rows}


async def list_shipments(connection: Connection, order_id: UUID) -> list[Shipment]:
    return [read_shipment(row) for row in await connection.fetch(queries.list_shipments, order_id)]


async def list_shipment_lines(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, list[ShipmentLine]]:
    lines: dict[UUID, list[ShipmentLine]] = {shipment_id: [] for shipment_id in shipment_ids}
    for shipment_id, *line in await connection.fetch(queries.list_shipment_lines, shipment_ids):
        lines[shipment_id].append(ShipmentLine(*line))
    return lines


def make_line_views(lines: Sequence[ShipmentLine]) -> list[ShipmentLineView]:
    return [ShipmentLineView(line.line_no, line.sku, line.quantity) for line in lines]


async def list_contents(connection: Connection, shipment_ids: Sequence[UUID]) -> dict[UUID, list[ContentLine]]:
    contents: dict[UUID, list[ContentLine]] = {shipment_id: [] for shipment_id in shipment_ids}
    for shipment_id, *line in await connection.fetch(queries.list_contents, shipment_ids):
        contents[shipment_id].append(ContentLine(*line))
    return contents


async def find_by_tracking_nos(
    connection: Connection, numbers: Collection[CarrierNumber]
) -> dict[CarrierNumber, ShipmentKey]:
    """Return the shipments of present or earlier bookings, by those of the numbers that a booking has.

    Any form of a number will do."""
    forms = {(carrier, form) for carrier, number in numbers for form in forms_of(number)}
    rows = await connection.fetch(queries.find_by_tracking_nos, *zip(*forms, strict=True)) if forms else []
    keys = {(row["carrier"], row["tracking_no"]): ShipmentKey(row["order_id"], row["shipment_id"]) for row in rows}
    result: dict[CarrierNumber, ShipmentKey] = {}
    for carrier, number in numbers:
        for form in forms_of(number):
            if key := keys.get((carrier, form)):
                result[carrier, number] = key
                break
    return result


def forms_of(tracking_no: str) -> tuple[str, str, str]:
    """Return the forms of a number: others, and older versions of this shop, may write small letters."""
    number = to_tracking_no(tracking_no)
    return number, tracking_no, number.lower()


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


async def insert_bookings(connection: Connection, bookings: Sequence[NewBooking], now: datetime) -> None:
    """Insert bookings as the current ones of their shipments. Commit before the requests to carriers."""
    if bookings:
        await connection.execute(queries.insert_bookings, now, *_transpose(bookings))


async def touch_booking_requests(connection: Connection, booking_ids: Sequence[UUID], now: datetime) -> None:
    """Record the time of repeated requests for bookings."""
    if booking_ids:
        await connection.execute(queries.touch_booking_requests, booking_ids, now)


async def get_booking_requested_at(connection: Connection, booking_id: UUID) -> datetime:
    requested_at: datetime = await connection.fetchval(queries.get_booking_requested_at, booking_id)
    return requested_at


async def end_bookings(
    connection: Connection, outcome: Literal["refused", "cancelled"], reasons: Mapping[UUID, str], now: datetime
) -> None:
    """End bookings; `reasons` by their ids."""
    texts = [reason[:_MAX_TEXT_CHARACTERS] for reason in reasons.values()]
    await connection.execute(queries.end_bookings, outcome, now, list(reasons), texts)


async def confirm_bookings(connection: Connection, bookings: Sequence[ConfirmedBooking], now: datetime) -> None:
    """Store carriers' confirmations with the bookings and the shipments.

    Raises `UniqueViolationError` if another booking of the carrier has the number."""
    columns = _transpose((shipment.shipment_id, id_, *confirmation) for shipment, id_, confirmation in bookings)
    await connection.execute(queries.confirm_bookings, *columns[1:3])
    await connection.execute(queries.set_confirmations, now, *columns)


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


async def record_refusals(connection: Connection, carriers: Mapping[UUID, str]) -> None:
    """Add a carrier to those that refused a shipment, and remove its booking; `carriers` by shipment."""
    await connection.execute(queries.record_refusals, *_transpose(carriers.items()))


async def clear_refusals(connection: Connection, shipment_ids: Sequence[UUID]) -> None:
    await connection.execute(queries.clear_refusals, shipment_ids)


async def redirect_shipment(connection: Connection, shipment_id: UUID, address: Address, *, later: bool) -> None:
    """Change a shipment's address now, or `later`, once its booking is cancelled."""
    query = queries.redirect_later if later else queries.redirect_now
    await connection.execute(query, shipment_id, msgspec.json.encode(address).decode())


# Events.


async def list_stored_event_keys(
    connection: Connection, keys: Collection[tuple[UUID, bytes]]
) -> set[tuple[UUID, bytes]]:
    """Return those of the keys, each with its shipment, that an event of the shipment has already."""
    if not keys:
        return set()
    rows = await connection.fetch(queries.list_stored_event_keys, *zip(*keys, strict=True))
    return {(row["shipment_id"], row["event_key"]) for row in rows}


async def insert_events(connection: Connection, histories: Sequence[NewHistory], now: datetime) -> None:
    """Insert events in their sequence, and advance the statuses by their steps.

    Call inside a transaction that holds the locks of the orders."""
    if not histories:
        return
    counts = Counter[UUID]()
    for history in histories:
        counts[history.order_id] += len(history.events)
    rows = await connection.fetch(queries.advance_event_seqs, list(counts), list(counts.values()))
    last_seqs = {row["order_id"]: row["event_seq"] - counts[row["order_id"]] for row in rows}
    events, steps_of, touched = list[_Row](), defaultdict[UUID, list[_Row]](list), dict[UUID, datetime]()
    for history in histories:
        id_, last_event_at = history.shipment_id, history.last_event_at
        for event in history.events:
            last_seqs[history.order_id] = seq = last_seqs[history.order_id] + 1
            events.append(_event_row(history, seq, event))
            if event.step:
                # A step also dates the last event, so that the row is not written once more.
                steps_of[id_].append((id_, *event.step, seq, event.at, last_event_at))
                last_event_at = None
        if last_event_at is not None:
            touched[id_] = max(touched.get(id_, last_event_at), last_event_at)
    # A trigger checks each step, so each has a statement, with those of other shipments.
    for steps in zip_longest(*steps_of.values()):
        await connection.execute(queries.advance_shipment_statuses, *_transpose(step for step in steps if step))
    if touched:
        await connection.execute(queries.touch_last_events, *_transpose(touched.items()))
    await connection.execute(queries.insert_events, now, *_transpose(events))


def _event_row(history: NewHistory, seq: int, event: NewShipmentEvent) -> _Row:
    return (
        *(history.order_id, seq, history.shipment_id, event.at, event.source, event.actor),
        *(event.step or (None, None)),
        *(event.code, event.is_unknown_code, event.contradicts_history, event.place),
        *(event.text[:_MAX_TEXT_CHARACTERS], event.key),
    )


def _transpose(rows: Iterable[_Row]) -> list[_Row]:
    """Turn rows into columns, for `unnest`."""
    return list(zip(*rows, strict=True))


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


async def list_stored_webhooks(connection: Connection, webhooks: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the webhooks, as (system, webhook id), that were stored before."""
    rows = await connection.fetch(queries.list_stored_webhooks, *zip(*webhooks, strict=True))
    return {(row["system"], row["webhook_id"]) for row in rows}


async def insert_webhooks(connection: Connection, webhooks: Sequence[NewWebhook], now: datetime) -> None:
    """Store webhooks with their results; the first one of an id stays."""
    if not webhooks:
        return
    # Sorted, so that two calls with the same webhooks do not wait for each other.
    rows = [
        (*webhook[:-1], f"{{{','.join(map(str, webhook.shipment_ids))}}}")
        for webhook in sorted(webhooks, key=lambda webhook: (webhook.system, webhook.webhook_id))
    ]
    await connection.execute(queries.insert_webhooks, now, *_transpose(rows))
