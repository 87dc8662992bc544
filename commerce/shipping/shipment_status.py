"""The one place that decides a shipment's status.

The status of the order, the counts of its units and the capture of its cash follow from it. Call inside a transaction
that holds the order lock. Webhooks, polls, drivers, workers and staff all lock the order first, so that events may
arrive twice, late and in any order. A status only advances: an event older than the present status is stored and
changes nothing, and an event that skips a step inserts the steps between.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import locked_orders
from commerce.payments import store as payments
from commerce.shipping import store
from commerce.shipping.carrier_port import BookingConfirmation, TrackingEvent
from commerce.shipping.errors import NoSuchShipment
from commerce.shipping.model import DELIVERY_PATH, FINAL_STATUSES, WITH_CARRIER, Shipment, ShipmentStatus, Source
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import NewShipmentEvent
from commerce.shipping.shipment_tasks import SHIPMENTS, put_order_task

ACTOR = "fulfilment_worker"
TrackingResultWord = Literal["unchanged", "recorded", "status_changed"]


class TrackingResult(NamedTuple):
    """The effect of tracking events, and how many of the new ones have an unknown code."""

    result: TrackingResultWord
    unknown_codes: int = 0


async def lock_shipment(connection: Connection, shipment_id: UUID) -> tuple[OrderHeader, Shipment]:
    """Lock the order of a shipment and read both. Raises `NoSuchShipment` if there is none."""
    unlocked = await store.get_shipment(connection, shipment_id)
    order = await orders.lock_order(connection, unlocked.order_id) if unlocked else None
    # The shipment may have changed while this transaction waited for the lock.
    shipment = await store.get_shipment(connection, shipment_id)
    if shipment is None or order is None:
        raise NoSuchShipment(f"there is no shipment {shipment_id}")
    return order, shipment


async def must_not_ship(connection: Connection, order: OrderHeader) -> bool:
    """Return whether the order must not be shipped: it is cancelled, or refunded in full."""
    return order.status is OrderStatus.CANCELLED or await payments.is_fully_refunded(connection, order.order_id)


async def record_step(
    connection: Connection, shipment: Shipment, to: ShipmentStatus, now: datetime, source: Source, actor: str, text: str
) -> None:
    """Advance a shipment by a step of our own: booked, planned again or cancelled."""
    event = NewShipmentEvent(now, source, actor, text, step=(shipment.status, to))
    await store.insert_events(connection, shipment.order_id, shipment.shipment_id, [event], now)
    if to is ShipmentStatus.CANCELLED:
        await jobs.remove(connection, SHIPMENTS, [shipment.shipment_id])
        await store.update_fulfilment_lines(connection, shipment.shipment_id, planned=-1)


async def record_note(
    connection: Connection, shipment: Shipment, now: datetime, source: Source, actor: str, text: str
) -> None:
    """Store an event that leaves the status unchanged."""
    event = NewShipmentEvent(now, source, actor, text)
    await store.insert_events(connection, shipment.order_id, shipment.shipment_id, [event], now)


async def record_booking(
    connection: Connection,
    shipment: Shipment,
    booking_id: UUID,
    confirmation: BookingConfirmation,
    now: datetime,
    source: Source,
    actor: str,
) -> None:
    """Store a carrier's confirmation and advance the shipment to booked."""
    await store.confirm_booking(connection, shipment.shipment_id, booking_id, confirmation, now)
    text = f"{shipment.carrier} takes it as {confirmation.tracking_no}"
    await record_step(connection, shipment, ShipmentStatus.BOOKED, now, source, actor, text)


async def apply_tracking_events(
    connection: Connection,
    order: OrderHeader,
    shipment: Shipment,
    tracking_events: Sequence[TrackingEvent],
    source: Source,
    actor: str,
    now: datetime,
    policy: ShippingPolicy,
    *,
    booking_is_current: bool = True,
) -> TrackingResult:
    """Store new tracking events of a shipment and advance its status.

    Call inside a transaction that holds the order lock (`lock_shipment`). Events are deduplicated by content. A late
    event is stored and changes nothing; a skipped status is inserted. With `booking_is_current=False` events are stored
    and never change the status, since no carrier should have the shipment."""
    new_events = await select_new_events(connection, shipment.shipment_id, tracking_events)
    if not new_events:
        return TrackingResult("unchanged")
    status, ended_at = shipment.status, shipment.ended_at
    rows, steps = list[NewShipmentEvent](), list[ShipmentStatus]()
    for key, event in new_events.items():
        path = _steps_between(status, event.status) if booking_is_current else []
        for to in path[:-1]:
            text = f"{to.replace('_', ' ')}, implied by the event after it"
            rows.append(NewShipmentEvent(event.at, source, actor, text, step=(status, to)))
            status = to
        if path:
            contradicts_history = False
        elif booking_is_current:
            contradicts_history = _contradicts_history(status, ended_at, event)
        else:
            contradicts_history = event.status is not None
        rows.append(
            NewShipmentEvent(
                at=event.at,
                source=source,
                actor=actor,
                text=event.text,
                step=(status, path[-1]) if path else None,
                code=event.code,
                is_unknown_code=event.is_unknown_code,
                contradicts_history=contradicts_history,
                place=event.place,
                key=key,
            )
        )
        if path:
            status = path[-1]
            ended_at = event.at if status in FINAL_STATUSES else None
            steps += path
    await store.insert_events(connection, order.order_id, shipment.shipment_id, rows, now)
    if booking_is_current:
        # A carrier's clock that runs ahead must not hide for days that a shipment has stalled.
        last_event_at = min(now, max(event.at for event in new_events.values()))
        await store.touch_last_event(connection, shipment.shipment_id, last_event_at)
    await _apply_steps(connection, order, shipment, steps, now, policy)
    unknown_codes = sum(event.is_unknown_code for event in new_events.values())
    return TrackingResult("status_changed" if steps else "recorded", unknown_codes)


async def select_new_events(
    connection: Connection, shipment_id: UUID, events: Sequence[TrackingEvent]
) -> dict[bytes, TrackingEvent]:
    """Return the events that are not stored yet, sorted by time, by their keys."""
    by_key = {_event_key(event): event for event in sorted(events, key=lambda event: event.at)}
    stored = await store.list_stored_event_keys(connection, shipment_id, list(by_key))
    return {key: event for key, event in by_key.items() if key not in stored}


def _event_key(event: TrackingEvent) -> bytes:
    """Digest an event's content: equal for the same event in a webhook and in a poll."""
    content = f"{event.at.timestamp()}\0{event.code}\0{event.place or ''}\0{event.text}"
    return blake2b(content.encode(), digest_size=16).digest()


def _steps_between(status: ShipmentStatus, to: ShipmentStatus | None) -> list[ShipmentStatus]:
    """List the steps from a status to another; none if it is not ahead, or if events cannot lead there."""
    if to is None or to is ShipmentStatus.CANCELLED or status not in DELIVERY_PATH[1:5]:
        return []
    if to in DELIVERY_PATH:
        return list(DELIVERY_PATH[DELIVERY_PATH.index(status) + 1 : DELIVERY_PATH.index(to) + 1])
    return [*([ShipmentStatus.PICKED_UP] if status is ShipmentStatus.BOOKED else []), to]


def _contradicts_history(status: ShipmentStatus, ended_at: datetime | None, event: TrackingEvent) -> bool:
    """Return whether an event cannot be true together with the present status.

    That is a second final status, transport after the final status, or any status of a shipment that is not booked. A
    late event is no contradiction."""
    if event.status is None or event.status is status:
        return False
    if status in (ShipmentStatus.PLANNED, ShipmentStatus.CANCELLED):
        return True
    if status not in FINAL_STATUSES:
        return False
    is_after_end = ended_at is not None and event.at > ended_at
    return event.status in FINAL_STATUSES or (event.status in WITH_CARRIER and is_after_end)


async def _apply_steps(
    connection: Connection,
    order: OrderHeader,
    shipment: Shipment,
    steps: Sequence[ShipmentStatus],
    now: datetime,
    policy: ShippingPolicy,
) -> None:
    # Step by step: a shipment that is reported as picked up and lost at once was shipped all the same.
    if FINAL_STATUSES.intersection(steps):
        await jobs.remove(connection, SHIPMENTS, [shipment.shipment_id])
    for to in steps:
        await _count_units(connection, shipment.shipment_id, to)
        if shipment.cod_minor and to is ShipmentStatus.DELIVERED:
            await _capture_cash_if_complete(connection, order, now)
        if to in (ShipmentStatus.PICKED_UP, ShipmentStatus.DELIVERED):
            order = await _advance_order(connection, order, now, policy)


async def _count_units(connection: Connection, shipment_id: UUID, to: ShipmentStatus) -> None:
    if to is ShipmentStatus.PICKED_UP:
        await store.update_fulfilment_lines(connection, shipment_id, shipped=1)
    elif to is ShipmentStatus.DELIVERED:
        await store.update_fulfilment_lines(connection, shipment_id, delivered=1)
    elif to in (ShipmentStatus.LOST, ShipmentStatus.RETURNED_TO_SENDER):
        await store.update_fulfilment_lines(connection, shipment_id, planned=-1, shipped=-1)


async def _capture_cash_if_complete(connection: Connection, order: OrderHeader, now: datetime) -> None:
    """Capture the payments on delivery once carriers have collected all parts, one with each shipment."""
    cash_due = await payments.list_cash_due(connection, order.order_id)
    total_minor = sum(amount_minor for _, amount_minor in cash_due)
    if not cash_due or await store.sum_cash_collected(connection, order.order_id) < total_minor:
        return
    await locked_orders.capture_cash(connection, order, [payment_id for payment_id, _ in cash_due], now)


async def _advance_order(
    connection: Connection, order: OrderHeader, now: datetime, policy: ShippingPolicy
) -> OrderHeader:
    """Advance the order to shipped once all units are picked up, to delivered once all are delivered."""
    totals = await store.get_fulfilment_totals(connection, order.order_id)
    if order.status is OrderStatus.FULFILLING and totals.shipped == totals.ordered:
        order = await _advance_order_to(connection, order, OrderStatus.SHIPPED, now, "all shipments are picked up")
        await store.mark_handed_over(connection, order.order_id, now)
    if order.status is OrderStatus.SHIPPED and totals.delivered == totals.ordered:
        order = await _advance_order_to(connection, order, OrderStatus.DELIVERED, now, "all shipments are delivered")
        complete_at = now + timedelta(seconds=policy.complete_after_s)
        if await store.mark_delivered(connection, order.order_id, now):
            await put_order_task(connection, order.order_id, "order.complete", complete_at, now)
    return order


async def _advance_order_to(
    connection: Connection, order: OrderHeader, to: OrderStatus, now: datetime, reason: str
) -> OrderHeader:
    await orders.advance_status(connection, order.order_id, order.status, to, now, ACTOR, reason)
    return order._replace(status=to)
