"""Shipments for customers, and the webhooks of carriers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status, store
from commerce.shipping.carrier_port import CarrierWebhook, TrackingEvent
from commerce.shipping.carrier_webhooks import CarrierWebhookResult, CarrierWebhooks, OtherShipments
from commerce.shipping.model import OrderShipments, Shipment, ShipmentEvent, ShipmentView, Source
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ShipmentLine
from commerce.shipping.tracking import TrackingReport, TrackingResult, by_key


class Shipping:
    """Reads shipments and applies tracking events to them, over Postgres."""

    def __init__(
        self, db: Database, clock: Clock, policy: ShippingPolicy, other_shipments: OtherShipments | None = None
    ) -> None:
        self._db = db
        self._policy = policy
        self._webhooks = CarrierWebhooks(db, clock, policy, other_shipments)

    async def get_order_shipments(self, order_id: UUID, user_id: str | None) -> OrderShipments:
        """Return an order's shipments with their events; for staff (`user_id` None) of any customer.

        Raises `NoSuchOrder` if the order is not stored or not the customer's."""
        async with self._db.snapshot() as connection:
            await self._get_own_order(connection, order_id, user_id)
            shipments = await store.list_shipments(connection, order_id)
            lines = await store.list_shipment_lines(connection, [shipment.shipment_id for shipment in shipments])
            order_events = await store.list_events_after(connection, order_id, 0)
            totals = await store.get_fulfilment_totals(connection, order_id)
        events: dict[UUID, list[ShipmentEvent]] = {shipment.shipment_id: [] for shipment in shipments}
        for event in sorted(order_events, key=lambda event: (event.at, event.seq)):
            events[event.shipment_id].append(event)
        return OrderShipments(
            order_id=order_id,
            unplanned_units=totals.expected - totals.planned,
            shipments=[
                _view(shipment, lines[shipment.shipment_id], events[shipment.shipment_id]) for shipment in shipments
            ],
        )

    async def events_after(
        self, order_id: UUID, user_id: str, after_seq: int
    ) -> tuple[list[ShipmentEvent], bool, bool]:
        """List an order's events with a greater seq, in the order in which they were stored.

        The first flag states that no event will follow, the second one that more events are stored already.
        Raises `NoSuchOrder` if the order is not stored or not the customer's."""
        async with self._db.snapshot() as connection:
            order = await self._get_own_order(connection, order_id, user_id)
            events = await store.list_events_after(connection, order_id, after_seq)
            has_more = len(events) == store.MAX_EVENTS
            return events, not has_more and await self._has_ended(connection, order), has_more

    async def _has_ended(self, connection: Connection, order: OrderHeader) -> bool:
        """Return whether all shipments have a final status, and no shipment will replace undelivered ones."""
        if await store.has_open_shipments(connection, order.order_id):
            return False
        totals = await store.get_fulfilment_totals(connection, order.order_id)
        return totals.delivered == totals.expected or await shipment_status.must_not_ship(connection, order)

    @staticmethod
    async def has_cash_shipments(connection: Connection, order_id: UUID) -> bool:
        """Return whether carriers are still to collect cash with shipments of an order."""
        return await store.has_cash_shipments(connection, order_id)

    async def latest_event_seqs(self, order_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return the seq of the last event of each of these orders that has a fulfilment."""
        async with self._db.connection() as connection:
            return await store.latest_event_seqs(connection, order_ids)

    async def _get_own_order(self, connection: Connection, order_id: UUID, user_id: str | None) -> OrderHeader:
        order = await orders.read_order_header(connection, order_id)
        if order is None or user_id not in (None, order.user_id):
            raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
        return order

    async def handle_webhook(self, system: str, webhook: CarrierWebhook, body: bytes) -> CarrierWebhookResult:
        """Store a genuine webhook and apply its events; see `CarrierWebhooks.handle`."""
        return await self._webhooks.handle(system, webhook, body)

    async def apply_tracking_events(
        self,
        connection: Connection,
        shipment_id: UUID,
        events: Sequence[TrackingEvent],
        source: Source,
        actor: str,
        now: datetime,
    ) -> TrackingResult:
        """Lock a shipment's order, then store events of the shipment and advance its status.

        Call inside a transaction. Raises `NoSuchShipment` if there is none."""
        locked = {shipment_id: await shipment_status.lock_shipment(connection, shipment_id)}
        report = TrackingReport(shipment_id, by_key(events), source, actor)
        [result] = await shipment_status.apply_reports(connection, locked, [report], now, self._policy)
        return result


def _view(shipment: Shipment, lines: Sequence[ShipmentLine], events: list[ShipmentEvent]) -> ShipmentView:
    return ShipmentView(
        shipment_id=shipment.shipment_id,
        parcel_no=shipment.parcel_no,
        status=shipment.status,
        ship_to=shipment.address_no,
        lines=store.make_line_views(lines),
        promised_on=shipment.promised_on,
        carrier=shipment.carrier,
        tracking_no=shipment.tracking_no,
        expected_on=shipment.expected_on,
        cash_to_collect=shipment.cod,
        events=events,
    )
