"""Where a parcel is, and what follows from it for the order, its goods and its cash. The one place that decides.

Call inside a transaction, with the order locked: pushes, queries, vans, the driver and the desk all lock the order
first, so that news may come twice, late and in any order. A parcel only ever goes forward: news that is older than what
is known is kept and moves nothing, news that skips a step makes the steps between as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import order_status
from commerce.payments import store as payments
from commerce.payments.provider_port import ProviderPayment
from commerce.shipping import store
from commerce.shipping.carrier_port import BookingConfirmation, TrackingEvent
from commerce.shipping.errors import NoSuchShipment
from commerce.shipping.model import DELIVERY_PATH, FINAL_STATUSES, WITH_CARRIER, Shipment, ShipmentStatus, Source
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import NewShipmentEvent

_S = ShipmentStatus
ACTOR = "fulfilment_worker"


class TrackingResult(NamedTuple):
    """A word for what news changed, and how many of them nobody knows the meaning of."""

    result: str
    unknown: int = 0


async def lock_shipment(connection: Connection, shipment_id: UUID) -> tuple[OrderHeader, Shipment]:
    """A parcel and its order, whose row is locked. Raises `NoSuchShipment`."""
    found = await store.shipment(connection, shipment_id)
    order = await orders.lock_order(connection, found.order_id) if found else None
    # It may have changed while the lock was waited for.
    found = await store.shipment(connection, shipment_id)
    if found is None or order is None:
        raise NoSuchShipment(f"there is no shipment {shipment_id}")
    return order, found


async def must_not_ship(connection: Connection, order: OrderHeader) -> bool:
    """Whether the order must not be sent: it was cancelled, or all its money goes back."""
    return order.status is OrderStatus.CANCELLED or await payments.is_fully_refunded(connection, order.order_id)


async def record_step(
    connection: Connection, shipment: Shipment, to: ShipmentStatus, now: datetime, source: Source, actor: str, text: str
) -> None:
    """One step that is ours to take: booked, planned again, cancelled."""
    event = NewShipmentEvent(now, source, actor, text, (shipment.status, to))
    await store.write_events(connection, shipment.order_id, shipment.shipment_id, [event], now)
    if to is _S.CANCELLED:
        await store.update_fulfilment_lines(connection, shipment.shipment_id, planned=-1)


async def record_note(
    connection: Connection, shipment: Shipment, now: datetime, source: Source, actor: str, text: str
) -> None:
    """Something that moves nothing."""
    event = NewShipmentEvent(now, source, actor, text)
    await store.write_events(connection, shipment.order_id, shipment.shipment_id, [event], now)


async def record_booking(
    connection: Connection,
    shipment: Shipment,
    booking_id: UUID,
    found: BookingConfirmation,
    now: datetime,
    source: Source,
    by: str,
) -> None:
    """A carrier will come for it."""
    await store.book(connection, shipment.shipment_id, booking_id, found.tracking_no, found.sort_code, now)
    text = f"{shipment.carrier} takes it as {found.tracking_no}"
    await record_step(connection, shipment, _S.BOOKED, now, source, by, text)


async def apply_tracking_events(
    connection: Connection,
    order: OrderHeader,
    shipment: Shipment,
    news: Sequence[TrackingEvent],
    source: Source,
    actor: str,
    now: datetime,
    rules: ShippingPolicy,
    *,
    stands: bool = True,
) -> TrackingResult:
    """Write down what somebody tells of a parcel, each thing once, and move it on where that says so.

    It moves nothing where it is told of a booking that does not stand (any more): then nobody should have the parcel.
    """
    keyed = {_key(one): one for one in sorted(news, key=lambda one: one.at)}
    known = await store.known_news(connection, shipment.shipment_id, list(keyed))
    new = [(key, one) for key, one in keyed.items() if key not in known]
    if not new:
        return TrackingResult("unchanged")
    status, ended_at, events, moves = (
        shipment.status,
        shipment.ended_at,
        list[NewShipmentEvent](),
        list[ShipmentStatus](),
    )
    for key, one in new:
        way = _steps_between(status, one.state) if stands else []
        moves += way
        for to in way[:-1]:
            text = f"taken as {to.replace('_', ' ')}, for what came after it"
            events.append(NewShipmentEvent(one.at, source, actor, text, (status, to)))
            status = to
        move = (status, way[-1]) if way else None
        cannot_be = move is None and (_contradicts(status, ended_at, one) if stands else one.state is not None)
        events.append(
            NewShipmentEvent(
                one.at, source, actor, one.text, move, one.code, one.is_unknown_code, cannot_be, one.place, key
            )
        )
        if way:
            status = way[-1]
            ended_at = one.at if status in FINAL_STATUSES else None
    await store.write_events(connection, order.order_id, shipment.shipment_id, events, now)
    if stands:
        # A clock that is wrong must not make it look alive for days.
        await store.touch_last_event(connection, shipment.shipment_id, min(now, max(one.at for _, one in new)))
    unknown = sum(one.is_unknown_code for _, one in new)
    # One by one: what has left and is lost with the same news has left all the same.
    for to in moves:
        await _count(connection, shipment.shipment_id, to)
        if shipment.cod_minor and to is _S.DELIVERED:
            await _cash(connection, order, now)
        if to in (_S.PICKED_UP, _S.DELIVERED):
            order = await _order_moves(connection, order, now, rules)
    return TrackingResult("status_changed" if moves else "recorded", unknown)


def _key(news: TrackingEvent) -> bytes:
    """The same for what is told twice, by a push and by an answer."""
    told = f"{news.at.timestamp()}\0{news.code}\0{news.place or ''}\0{news.text}"
    return blake2b(told.encode(), digest_size=16).digest()


def _steps_between(at: ShipmentStatus, to: ShipmentStatus | None) -> list[ShipmentStatus]:
    """The steps from where it is known to be; none where it is further already, or nowhere that news could move it."""
    if to is None or to is _S.CANCELLED or at not in DELIVERY_PATH[1:5]:
        return []
    if to in DELIVERY_PATH:
        return list(DELIVERY_PATH[DELIVERY_PATH.index(at) + 1 : DELIVERY_PATH.index(to) + 1])
    return [*([_S.PICKED_UP] if at is _S.BOOKED else []), to]


def _contradicts(status: ShipmentStatus, ended_at: datetime | None, news: TrackingEvent) -> bool:
    """Whether news cannot be true beside what is known: it has two ends, or goes on after its end, or was never to go.

    What merely comes late is no contradiction.
    """
    if news.state is None or news.state is status:
        return False
    if status in (_S.PLANNED, _S.CANCELLED):
        return True
    if status not in FINAL_STATUSES:
        return False
    return news.state in FINAL_STATUSES or (news.state in WITH_CARRIER and ended_at is not None and news.at > ended_at)


async def _count(connection: Connection, shipment_id: UUID, to: ShipmentStatus) -> None:
    if to is _S.PICKED_UP:
        await store.update_fulfilment_lines(connection, shipment_id, shipped=1)
    elif to is _S.DELIVERED:
        await store.update_fulfilment_lines(connection, shipment_id, delivered=1)
    elif to in (_S.LOST, _S.RETURNED_TO_SENDER):
        await store.update_fulfilment_lines(connection, shipment_id, planned=-1, shipped=-1)


async def _cash(connection: Connection, order: OrderHeader, now: datetime) -> None:
    """The carriers collect a part with each parcel; the payment is captured once they have all of it."""
    to_collect = await payments.list_cash_due(connection, order.order_id)
    if not to_collect or await store.cash_collected(connection, order.order_id) < sum(part for _, part in to_collect):
        return
    for payment_id, _ in to_collect:
        paid = await payments.get_payment(connection, payment_id)
        assert paid is not None
        seen = ProviderPayment(payment_id, "captured", paid.amount, None, now)
        await order_status.record_capture(connection, order, paid, seen, now)


async def _order_moves(connection: Connection, order: OrderHeader, now: datetime, rules: ShippingPolicy) -> OrderHeader:
    """The order goes on once all of it has left, and again once all of it has arrived."""
    sums = await store.goods_sums(connection, order.order_id)
    if order.status is OrderStatus.FULFILLING and sums.shipped == sums.ordered:
        order = await _order_step(connection, order, OrderStatus.SHIPPED, now, "every parcel has left")
        await store.order_handed_over(connection, order.order_id, now)
    if order.status is OrderStatus.SHIPPED and sums.delivered == sums.ordered:
        order = await _order_step(connection, order, OrderStatus.DELIVERED, now, "every parcel has arrived")
        over_at = now + timedelta(seconds=rules.complete_after_s)
        await store.order_delivered(connection, order.order_id, now, over_at)
    return order


async def _order_step(
    connection: Connection, order: OrderHeader, to: OrderStatus, now: datetime, why: str
) -> OrderHeader:
    await orders.advance_status(connection, order.order_id, order.status, to, now, ACTOR, why)
    return order._replace(status=to)
