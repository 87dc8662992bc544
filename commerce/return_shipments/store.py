"""Rows of return shipments and of their events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.return_shipments.model import (
    ENDED_STATUSES,
    BookedBy,
    NewReturnShipment,
    ReturnContent,
    ReturnShipment,
    ReturnShipmentEvent,
    ReturnStatus,
)
from commerce.return_shipments.return_tracking import NewReturnEvent
from commerce.shipping.carrier_port import BookingConfirmation, ContentLine
from commerce.shipping.records import CarrierNumber, PackageSize
from commerce.shipping.store import forms_of

_COLUMNS = ReturnShipment.__struct_fields__
queries = load_queries(__package__, return_shipments=_COLUMNS)
NUMBER_CONSTRAINT = "return_shipments_by_number"
_MAX_TEXT_CHARACTERS = 500


class ReturnShipmentKey(NamedTuple):
    """A return shipment and its order."""

    order_id: UUID
    return_shipment_id: UUID


class BookingChoice(NamedTuple):
    """The carrier that is to collect a return shipment, the booking id, and the price in minor units."""

    carrier: str
    booking_id: UUID
    price_minor: int | None
    expected_on: date | None


def _read_shipment(row: Any) -> ReturnShipment:
    values = {column: row[column] for column in _COLUMNS}
    values["status"] = ReturnStatus(values["status"])
    values["from_address"] = msgspec.json.decode(values["from_address"], type=Address)
    return ReturnShipment(**values)


async def insert_shipment(
    connection: Connection,
    return_shipment_id: UUID,
    new: NewReturnShipment,
    size: PackageSize,
    booked_by: BookedBy,
    now: datetime,
    actor: str,
) -> None:
    """Insert a requested return shipment with its contents."""
    await connection.execute(
        queries.insert_return_shipment,
        *(return_shipment_id, new.case_id, new.order_id, new.user_id, booked_by),
        *(msgspec.json.encode(new.from_address).decode(), new.warehouse_id, *size),
        *(new.value_minor, new.currency, new.payer, now, actor),
    )
    await connection.execute(
        queries.insert_return_shipment_lines, return_shipment_id, new.case_id, *_columns(new.contents, ReturnContent)
    )


def _columns(rows: Sequence[tuple[Any, ...]], kind: Any) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(len(kind._fields))]


async def get_shipment(connection: Connection, return_shipment_id: UUID) -> ReturnShipment | None:
    return (await get_shipments(connection, [return_shipment_id])).get(return_shipment_id)


async def get_shipments(connection: Connection, return_shipment_ids: Sequence[UUID]) -> dict[UUID, ReturnShipment]:
    """Return those of the return shipments that exist, by their ids."""
    rows = await connection.fetch(queries.get_return_shipments, return_shipment_ids)
    return {row["return_shipment_id"]: _read_shipment(row) for row in rows}


async def list_shipments_of_case(connection: Connection, case_id: UUID) -> list[ReturnShipment]:
    """List the return shipments of a case, oldest first."""
    return [_read_shipment(row) for row in await connection.fetch(queries.list_shipments_of_case, case_id)]


async def list_orders_of_shipments(connection: Connection, return_shipment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the order ids by return shipment; unknown shipments are left out."""
    rows = await connection.fetch(queries.list_orders_of_shipments, return_shipment_ids)
    return {row["return_shipment_id"]: row["order_id"] for row in rows}


async def lock_orders_of_shipments(connection: Connection, return_shipment_ids: Sequence[UUID]) -> None:
    """Lock the orders of return shipments until the transaction ends."""
    await connection.execute(queries.lock_orders_of_shipments, return_shipment_ids)


async def list_contents(connection: Connection, return_shipment_id: UUID) -> list[ContentLine]:
    return [ContentLine(*line) for line in await connection.fetch(queries.list_contents, return_shipment_id)]


async def is_awaited(connection: Connection, case_id: UUID) -> bool:
    """Return whether a case still expects units: it was not cancelled or resolved meanwhile."""
    return bool(await connection.fetchval(queries.is_awaited, case_id))


async def get_units(connection: Connection, return_shipment_id: UUID) -> dict[int, int]:
    """Return the units of a return shipment by `case_line_no`."""
    rows = await connection.fetch(queries.get_units, return_shipment_id)
    return {row["case_line_no"]: row["quantity"] for row in rows}


async def find_by_tracking_nos(
    connection: Connection, numbers: Collection[CarrierNumber]
) -> dict[CarrierNumber, ReturnShipmentKey]:
    """Return the return shipments by those of the numbers, in any form, that one has or had."""
    forms = {form for _, number in numbers for form in forms_of(number)}
    rows = await connection.fetch(queries.find_by_tracking_nos, list(forms)) if forms else []
    keys = {
        (row["carrier"], form): ReturnShipmentKey(row["order_id"], row["return_shipment_id"])
        for row in rows
        for form in forms_of(row["tracking_no"])
    }
    return {
        (carrier, number): key
        for carrier, number in numbers
        if (key := keys.get((carrier, forms_of(number)[0]))) is not None
    }


async def find_shipment_ids(connection: Connection, tracking_no: str) -> list[UUID]:
    """List the return shipments with a number of whatever carrier; one that is not cancelled comes last."""
    rows = await connection.fetch(queries.find_by_tracking_nos, list(forms_of(tracking_no)))
    return [row["return_shipment_id"] for row in rows]


# Bookings.


async def set_booking_request(
    connection: Connection, return_shipment_id: UUID, choice: BookingChoice, now: datetime
) -> None:
    """Store the carrier and the booking that is about to be requested. Commit before the request."""
    await connection.execute(
        queries.set_booking_request,
        *(return_shipment_id, choice.carrier, choice.booking_id, now, choice.price_minor, choice.expected_on),
    )


async def touch_booking_request(connection: Connection, return_shipment_id: UUID, now: datetime) -> None:
    """Record the time of a repeated request for a booking."""
    await connection.execute(queries.touch_booking_request, return_shipment_id, now)


async def confirm_booking(
    connection: Connection, return_shipment_id: UUID, confirmation: BookingConfirmation, now: datetime
) -> None:
    """Store a carrier's confirmation. Raises `UniqueViolationError` if another return has the number."""
    await connection.execute(queries.confirm_booking, return_shipment_id, *confirmation, now)


async def record_refusal(connection: Connection, return_shipment_id: UUID) -> None:
    """Add the carrier to those that refused the shipment, and remove its booking."""
    await connection.execute(queries.record_refusal, return_shipment_id)


async def clear_refusals(connection: Connection, return_shipment_id: UUID) -> None:
    await connection.execute(queries.clear_refusals, return_shipment_id)


async def set_own_number(
    connection: Connection, return_shipment_id: UUID, carrier: str, tracking_no: str, now: datetime
) -> None:
    """Store the customer's own number. Raises `UniqueViolationError` if another return shipment has it."""
    await connection.execute(queries.set_own_number, return_shipment_id, carrier, tracking_no, now)


async def reopen(connection: Connection, return_shipment_id: UUID) -> None:
    """Set a shipment that has ended and was not received back to booked. Another step must follow."""
    await connection.execute(queries.reopen, return_shipment_id)


async def set_cancelling(connection: Connection, return_shipment_id: UUID, is_cancelling: bool) -> None:
    await connection.execute(queries.set_cancelling, return_shipment_id, is_cancelling)


async def begin_poll(
    connection: Connection, shipment: ReturnShipment, now: datetime, interval_s: float
) -> datetime | None:
    """Record that a carrier is about to be polled, and return None.

    If the last poll is less than `interval_s` ago, nothing is recorded, and the result is when to poll."""
    if await connection.fetchval(queries.begin_poll, shipment.return_shipment_id, now, interval_s):
        return None
    return (shipment.polled_at or now) + timedelta(seconds=interval_s)


# Events.


async def list_known_keys(connection: Connection, return_shipment_id: UUID, keys: Collection[bytes]) -> set[bytes]:
    """Return those of the keys that an event of the return shipment has already."""
    rows = await connection.fetch(queries.list_known_keys, return_shipment_id, list(keys))
    return {row["event_key"] for row in rows}


async def insert_events(
    connection: Connection,
    return_shipment_id: UUID,
    events: Sequence[NewReturnEvent],
    now: datetime,
    last_event_at: datetime | None = None,
) -> None:
    """Insert events in their sequence, and advance the status by their steps.

    Call inside a transaction that holds the order lock."""
    steps = [(event.at, event.step[1]) for event in events if event.step]
    status = steps[-1][1] if steps else None
    ended_at = steps[-1][0] if status in ENDED_STATUSES else None
    last_seq = await connection.fetchval(
        queries.advance_shipment, return_shipment_id, len(events), status, ended_at, last_event_at
    )
    rows = [
        (
            *(last_seq - len(events) + place, event.at, event.source, event.actor, *(event.step or (None, None))),
            *(event.code, event.is_unknown_code, event.contradicts_history, event.place),
            *(event.text[:_MAX_TEXT_CHARACTERS], event.key),
        )
        for place, event in enumerate(events, 1)
    ]
    await connection.execute(queries.insert_shipment_events, return_shipment_id, now, *zip(*rows, strict=True))


async def list_events(
    connection: Connection, return_shipment_ids: Sequence[UUID]
) -> dict[UUID, list[ReturnShipmentEvent]]:
    """List the events of return shipments in the order in which they happened."""
    events = defaultdict[UUID, list[ReturnShipmentEvent]](list)
    for row in await connection.fetch(queries.list_shipment_events, return_shipment_ids):
        status = ReturnStatus(row["status"]) if row["status"] else None
        events[row["return_shipment_id"]].append(
            ReturnShipmentEvent(row["seq"], row["at"], row["source"], row["text"], status, row["place"])
        )
    return events
