"""What customers see of their parcels, and what carriers tell of them by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status, store
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from commerce.shipping.model import OrderShipments, Shipment, ShipmentEvent, ShipmentView, Source
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ShipmentLine
from commerce.shipping.shipment_status import TrackingResult

_STAFF = "staff"


class Shipping:
    """Parcels over Postgres."""

    def __init__(self, db: Database, clock: Clock, rules: ShippingPolicy) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules

    async def show(self, order_id: UUID, user_id: str | None) -> OrderShipments:
        """An order's parcels with their events; anybody's for staff (no user). Raises `NoSuchOrder`."""
        async with self._db.snapshot() as connection:
            await self._owned(connection, order_id, user_id)
            found = await store.shipments_of(connection, order_id)
            lines = await store.lines_of(connection, [one.shipment_id for one in found])
            events = await store.events_after(connection, order_id, 0)
            sums = await store.goods_sums(connection, order_id)
        told: dict[UUID, list[ShipmentEvent]] = {one.shipment_id: [] for one in found}
        for event in sorted(events, key=lambda event: (event.at, event.seq)):
            told[event.shipment_id].append(event)
        views = [_view(one, lines[one.shipment_id], told[one.shipment_id]) for one in found]
        return OrderShipments(order_id, sums.ordered - sums.planned, views)

    async def events_after(self, order_id: UUID, user_id: str, after: int) -> tuple[list[ShipmentEvent], bool, bool]:
        """What has happened to an order's parcels after the event `after`, in the order in which it became known;
        whether nothing will come after that; whether there is more of it already. Raises `NoSuchOrder`."""
        async with self._db.snapshot() as connection:
            order = await self._owned(connection, order_id, user_id)
            events = await store.events_after(connection, order_id, after)
            more = len(events) == store.MOST_EVENTS
            return events, not more and await self._is_over(connection, order), more

    async def _is_over(self, connection: Connection, order: OrderHeader) -> bool:
        """Whether all parcels have ended, and none will be made for goods that did not arrive."""
        if await store.some_are_open(connection, order.order_id):
            return False
        sums = await store.goods_sums(connection, order.order_id)
        return sums.delivered == sums.ordered or await shipment_status.must_not_ship(connection, order)

    @staticmethod
    async def has_cash_shipments(connection: Connection, order_id: UUID) -> bool:
        """Whether there are parcels of an order, not at their end yet, that bring its cash."""
        return await store.couriers_collect(connection, order_id)

    async def progress(self, order_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The seq of the last event of each of these orders that is to be sent."""
        async with self._db.connection() as connection:
            return await store.progress(connection, order_ids)

    async def _owned(self, connection: Connection, order_id: UUID, user_id: str | None) -> OrderHeader:
        order = await orders.read_order_header(connection, order_id)
        if order is None or user_id not in (None, order.user_id):
            raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
        return order

    async def handle_webhook(self, system: str, notice: CarrierWebhook, body: bytes) -> TrackingResult:
        """Store a genuine push and what it changes, parcel by parcel; a word for what became of it.

        `unknown_number` where a parcel is not known (yet: its booking may be about to be written); the push is then
        not kept and should come again. What it told of other parcels is written down all the same.
        """
        async with self._db.transaction() as connection:
            if await store.known_notice(connection, system, notice.webhook_id):
                return TrackingResult("duplicate")
            found = [
                (await store.find_by_tracking_no(connection, push.carrier, push.tracking_no), push)
                for push in notice.updates
            ]
            # In the order in which everybody takes the locks of orders.
            known = sorted(((ids, push) for ids, push in found if ids is not None), key=itemgetter(0))
            heard = [await self._push(connection, shipment_id, push, system) for (_, shipment_id), push in known]
            words = {one.result for one in heard} | ({"unknown_tracking_no"} if len(known) < len(found) else set())
            result = next((word for word in ("unknown_tracking_no", "status_changed", "recorded") if word in words), "unchanged")
            if result != "unknown_tracking_no":
                await store.add_notice(connection, system, notice.webhook_id, self._now(), result, body)
        return TrackingResult(result, sum(one.unknown for one in heard))

    async def _push(
        self, connection: Connection, shipment_id: UUID, push: ShipmentUpdate, system: str
    ) -> TrackingResult:
        order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
        stands = (shipment.carrier, shipment.tracking_no) == (push.carrier, push.tracking_no)
        return await shipment_status.apply_tracking_events(
            connection, order, shipment, push.events, "webhook", system, self._now(), self._rules, stands=stands
        )

    async def apply_tracking_events(
        self,
        connection: Connection,
        shipment_id: UUID,
        news: Sequence[TrackingEvent],
        source: Source,
        actor: str,
        now: datetime,
    ) -> TrackingResult:
        """Write down what somebody tells of a parcel. Call inside a transaction."""
        order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
        return await shipment_status.apply_tracking_events(
            connection, order, shipment, news, source, actor, now, self._rules
        )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _view(shipment: Shipment, lines: Sequence[ShipmentLine], events: list[ShipmentEvent]) -> ShipmentView:
    return ShipmentView(
        shipment.shipment_id,
        shipment.parcel_no,
        shipment.status,
        shipment.address_no,
        store.shown(lines),
        shipment.promised_on,
        shipment.carrier,
        shipment.tracking_no,
        shipment.expected_on,
        shipment.cod,
        events,
    )
