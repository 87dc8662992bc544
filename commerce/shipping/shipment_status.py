"""The one place that changes a shipment's status.

The status of the order, the counts of its units and the capture of its cash follow from it. Call inside a transaction
that holds the order lock. Webhooks, polls, drivers, workers and staff all lock the order first; what their events
change is decided in `tracking`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader, StatusStep
from commerce.payments import store as payments
from commerce.shipping import store
from commerce.shipping.cash_on_delivery import collect_cash
from commerce.shipping.errors import NoSuchShipment
from commerce.shipping.model import FINAL_STATUSES, UNDELIVERED_STATUSES, Shipment, ShipmentStatus, Source
from commerce.shipping.order_progress import OrderProgress
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ConfirmedBooking, NewHistory, NewShipmentEvent, ShipmentKey, UnitMove
from commerce.shipping.shipment_tasks import SHIPMENTS, put_cancellation_jobs, put_case_openings, put_order_tasks
from commerce.shipping.tracking import TrackedShipment, TrackingReport, TrackingResult

ACTOR = "fulfilment_worker"
_UNITS_MOVED = frozenset(
    {
        ShipmentStatus.PICKED_UP,
        ShipmentStatus.DELIVERED,
        ShipmentStatus.LOST,
        ShipmentStatus.RETURNED_TO_SENDER,
    }
)


class LockedShipment(NamedTuple):
    """A shipment and its order, whose row is locked."""

    order: OrderHeader
    shipment: Shipment


async def lock_shipment(connection: Connection, shipment_id: UUID) -> LockedShipment:
    """Lock the order of a shipment and read both. Raises `NoSuchShipment` if there is none."""
    order_id = (await store.list_orders_of_shipments(connection, [shipment_id])).get(shipment_id)
    order = await orders.lock_order(connection, order_id) if order_id else None
    # The shipment may have changed while this transaction waited for the lock.
    shipment = await store.get_shipment(connection, shipment_id)
    if shipment is None or order is None:
        raise NoSuchShipment(f"there is no shipment {shipment_id}")
    return LockedShipment(order, shipment)


async def lock_free_shipments(connection: Connection, keys: Collection[ShipmentKey]) -> dict[UUID, LockedShipment]:
    """Lock the orders of shipments and read both. Never waits: locked orders are left out."""
    if not keys:
        return {}
    headers = await orders.lock_free_orders(connection, list({key.order_id for key in keys}))
    ids = [key.shipment_id for key in keys if key.order_id in headers]
    shipments = await store.get_shipments(connection, ids)
    return {id_: LockedShipment(headers[shipment.order_id], shipment) for id_, shipment in shipments.items()}


async def lock_shipments(
    connection: Connection, shipment_ids: Sequence[UUID], *, may_wait: bool
) -> dict[UUID, LockedShipment]:
    """Lock the orders of shipments and read both.

    With `may_wait` there is one shipment; raises `NoSuchShipment` if it does not exist. Otherwise never waits: those
    that do not exist, or whose order is locked, are left out."""
    if may_wait:
        [shipment_id] = shipment_ids
        return {shipment_id: await lock_shipment(connection, shipment_id)}
    orders_of = await store.list_orders_of_shipments(connection, shipment_ids)
    return await lock_free_shipments(connection, [ShipmentKey(order_id, id_) for id_, order_id in orders_of.items()])


async def must_not_ship(connection: Connection, order: OrderHeader) -> bool:
    """Return whether the order must not be shipped: it is cancelled, or refunded in full."""
    return bool(await list_unshippable(connection, [order]))


async def list_unshippable(connection: Connection, headers: Sequence[OrderHeader]) -> set[UUID]:
    """Return those of the orders that must not be shipped."""
    cancelled = {order.order_id for order in headers if order.status is OrderStatus.CANCELLED}
    others = [order.order_id for order in headers if order.order_id not in cancelled]
    return cancelled | (await payments.list_fully_refunded(connection, others) if others else set())


async def record_step(
    connection: Connection, shipment: Shipment, to: ShipmentStatus, now: datetime, source: Source, actor: str, text: str
) -> None:
    """Advance a shipment by a step of our own: booked, planned again or cancelled.

    Of a cancelled one it is decided next what becomes of its units."""
    event = NewShipmentEvent(now, source, actor, text, step=(shipment.status, to))
    await store.insert_events(connection, [NewHistory(shipment.order_id, shipment.shipment_id, [event])], now)
    if to is ShipmentStatus.CANCELLED:
        await jobs.remove(connection, SHIPMENTS, [shipment.shipment_id])
        await store.update_fulfilment_lines(connection, [UnitMove(shipment.shipment_id, planned=-1)])
        await put_cancellation_jobs(connection, [shipment.order_id], now, now)


async def record_note(
    connection: Connection, shipment: Shipment, now: datetime, source: Source, actor: str, text: str
) -> None:
    """Store an event that leaves the status unchanged."""
    await record_notes(connection, [(shipment, text)], now, source, actor)


async def record_notes(
    connection: Connection, notes: Sequence[tuple[Shipment, str]], now: datetime, source: Source, actor: str
) -> None:
    """Store an event for each shipment, with its text, that leaves the status unchanged."""
    histories = [
        NewHistory(shipment.order_id, shipment.shipment_id, [NewShipmentEvent(now, source, actor, text)])
        for shipment, text in notes
    ]
    await store.insert_events(connection, histories, now)


async def record_bookings(
    connection: Connection, bookings: Sequence[ConfirmedBooking], now: datetime, source: Source, actor: str
) -> None:
    """Store carriers' confirmations and advance the shipments to booked."""
    await store.confirm_bookings(connection, bookings, now)
    histories = list[NewHistory]()
    for shipment, _, confirmation in bookings:
        text = f"{shipment.carrier} takes it as {confirmation.tracking_no}"
        event = NewShipmentEvent(now, source, actor, text, step=(shipment.status, ShipmentStatus.BOOKED))
        histories.append(NewHistory(shipment.order_id, shipment.shipment_id, [event]))
    await store.insert_events(connection, histories, now)


async def apply_reports(
    connection: Connection,
    locked: Mapping[UUID, LockedShipment],
    reports: Sequence[TrackingReport],
    now: datetime,
    policy: ShippingPolicy,
) -> list[TrackingResult]:
    """Store new tracking events and advance the statuses of shipments, each report after those before it.

    Call inside a transaction; `locked` has all shipments of the reports. Events are deduplicated by content. A late
    event is stored and changes nothing; a skipped status is inserted. Returns the result of each report."""
    stored = await store.list_stored_event_keys(
        connection, {(report.shipment_id, key) for report in reports for key in report.events}
    )
    known_keys = defaultdict[UUID, set[bytes]](set)
    for shipment_id, key in stored:
        known_keys[shipment_id].add(key)
    tracked = {id_: TrackedShipment(shipment, known_keys[id_]) for id_, (_, shipment) in locked.items()}
    decisions = [tracked[report.shipment_id].add(report, now) for report in reports]
    if histories := [decision.history for decision in decisions if decision.history.events]:
        await store.insert_events(connection, histories, now)
        steps = [(decision.history.shipment_id, to) for decision in decisions for to in decision.steps]
        await _apply_steps(connection, locked, tracked, steps, now, policy)
    return [decision.result for decision in decisions]


async def _apply_steps(
    connection: Connection,
    locked: Mapping[UUID, LockedShipment],
    tracked: Mapping[UUID, TrackedShipment],
    steps: Sequence[tuple[UUID, ShipmentStatus]],
    now: datetime,
    policy: ShippingPolicy,
) -> None:
    """Let jobs, units, cash and orders follow the steps of shipments, which are in their sequence."""
    if ended := [shipment_id for shipment_id, to in steps if to in FINAL_STATUSES]:
        await jobs.remove(connection, SHIPMENTS, ended)
    moves = [(shipment_id, to) for shipment_id, to in steps if to in _UNITS_MOVED]
    if not moves:
        return
    moved_ids = list(dict.fromkeys(shipment_id for shipment_id, _ in moves))
    headers = {order.order_id: order for order, _ in map(locked.__getitem__, moved_ids)}
    units = await store.sum_shipment_units(connection, moved_ids)
    totals = await store.list_fulfilment_totals(connection, list(headers))
    await store.update_fulfilment_lines(connection, [tracked[shipment_id].move_units() for shipment_id in moved_ids])
    progress = {order_id: OrderProgress(order.status, totals[order_id]) for order_id, order in headers.items()}
    cash_orders = dict[UUID, OrderHeader]()
    for shipment_id, to in moves:
        order, _ = locked[shipment_id]
        progress[order.order_id].add_step(to, units[shipment_id])
        if to is ShipmentStatus.DELIVERED:
            cash_orders[order.order_id] = order
    await collect_cash(connection, cash_orders, now)
    await advance_orders(connection, progress, now, policy)
    # Returned and lost units, and shipments that were collected before they could be stopped.
    undecided = {
        locked[shipment_id].order.order_id
        for shipment_id, to in moves
        if to in UNDELIVERED_STATUSES or locked[shipment_id].shipment.after_cancel == "cancelled"
    }
    await put_cancellation_jobs(connection, undecided, now, now)
    unwanted = {
        locked[shipment_id].order.order_id
        for shipment_id, to in moves
        if to is ShipmentStatus.DELIVERED and _was_to_be_stopped(locked[shipment_id].shipment)
    }
    await put_case_openings(connection, unwanted, now)


def _was_to_be_stopped(shipment: Shipment) -> bool:
    return shipment.plan_again or shipment.cancel_refused_at is not None


async def advance_orders(
    connection: Connection, progress: Mapping[UUID, OrderProgress], now: datetime, policy: ShippingPolicy
) -> None:
    """Store that all expected units of orders are with carriers, or delivered."""
    shipped = [order_id for order_id, order in progress.items() if OrderStatus.SHIPPED in order.reached]
    delivered = [order_id for order_id, order in progress.items() if OrderStatus.DELIVERED in order.reached]
    if shipped:
        step = (OrderStatus.FULFILLING, OrderStatus.SHIPPED, "all shipments are picked up")
        await orders.advance_statuses(connection, [StatusStep(order_id, *step) for order_id in shipped], now, ACTOR)
        await store.mark_handed_over(connection, shipped, now)
    if delivered:
        step = (OrderStatus.SHIPPED, OrderStatus.DELIVERED, "all shipments are delivered")
        await orders.advance_statuses(connection, [StatusStep(order_id, *step) for order_id in delivered], now, ACTOR)
        complete_at = now + timedelta(seconds=policy.complete_after_s)
        to_complete = await store.mark_delivered(connection, delivered, now)
        await put_order_tasks(connection, to_complete, "order.complete", complete_at, now)
