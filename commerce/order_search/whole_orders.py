"""Orders as support reads them: with money, shipments, returns, cases and one story."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from commerce.aftersales import store as cases
from commerce.cancellations import store as cancellations
from commerce.conversations import store as conversations
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database
from commerce.order_search import store
from commerce.order_search.model import OrderContact, OrderView, StoryEntry, WholeOrder
from commerce.orders.model import OrderDetails
from commerce.orders.service import Orders
from commerce.payments.service import Payments
from commerce.return_shipments import store as returns
from commerce.return_shipments.model import ReturnShipmentDetails
from commerce.shipping.model import OrderShipments
from commerce.shipping.service import Shipping

_MAX_CONVERSATIONS = 100


class WholeOrders:
    """Reads orders whole, and records who does."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        orders: Orders,
        payments: Payments,
        shipping: Shipping,
    ) -> None:
        self._db = db
        self._clock = clock
        self._orders = orders
        self._payments = payments
        self._shipping = shipping

    async def read(self, order_id: UUID, sales: Sequence[str], actor: str) -> WholeOrder:
        """Read any customer's order with all that belongs to it, and record the view.

        `sales` are the ids of the sales that are loaded in Redis. Raises `NoSuchOrder`."""
        details = await self._orders.get_details(order_id, sales)
        async with self._db.connection() as connection:
            await store.insert_view(connection, order_id, actor, from_ms(self._clock.now_ms()))
        is_stored = details.order.total is not None
        payments = await self._payments.get(order_id, None) if is_stored else None
        shipments = await self._shipping.get_order_shipments(order_id, None) if is_stored else None
        async with self._db.snapshot() as connection:
            return_ids = await store.list_return_shipments(connection, order_id)
            rows = await returns.get_shipments(connection, return_ids)
            events = await returns.list_events(connection, return_ids)
            return_shipments = [ReturnShipmentDetails(rows[id_], events[id_]) for id_ in return_ids]
            return WholeOrder(
                user_id=details.user_id,
                order=details.order,
                events=details.events,
                contacts=[
                    OrderContact(number, address.name, address.phone)
                    for number, address in enumerate(details.order.ship_to or ())
                ],
                payments=payments,
                transactions=await store.list_transactions(connection, order_id),
                grants=await store.list_grants(connection, order_id),
                postings=await store.list_postings(connection, order_id),
                shipments=shipments,
                return_shipments=return_shipments,
                cancellations=await cancellations.list_of_order(connection, order_id),
                cases=await cases.list_of_order(connection, order_id),
                conversations=await conversations.list_of_order(connection, order_id, _MAX_CONVERSATIONS),
                story=sorted(
                    [*_of_order(details), *_of_shipments(shipments), *_of_returns(return_shipments)],
                    key=lambda entry: entry.at,
                ),
            )

    async def list_views(self, order_id: UUID) -> list[OrderView]:
        """List those of the staff who have opened an order, the latest first."""
        async with self._db.connection() as connection:
            return await store.list_views(connection, order_id)


def _of_order(details: OrderDetails) -> Iterator[StoryEntry]:
    order_id = details.order.order_id
    for event in details.events:
        yield StoryEntry(
            *(event.at, "order", order_id, event.actor, event.reason, event.status, event.kind, event.details)
        )


def _of_shipments(shipments: OrderShipments | None) -> Iterator[StoryEntry]:
    for shipment in shipments.shipments if shipments else ():
        for event in shipment.events:
            yield StoryEntry(event.at, "shipment", shipment.shipment_id, event.source, event.text, event.status)


def _of_returns(return_shipments: Sequence[ReturnShipmentDetails]) -> Iterator[StoryEntry]:
    for details in return_shipments:
        for event in details.events:
            id_ = details.shipment.return_shipment_id
            yield StoryEntry(event.at, "return_shipment", id_, event.source, event.text, event.status)
