"""From a paid order to parcels: by address, by warehouse, by what a box holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import FulfilmentJob, LineToPlan
from commerce.fulfilment.packing import Box, PackedBox, PackItem, pack
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import ShippingPolicy, promised_day
from commerce.shipping.records import NewShipment, PackageSize, ShipmentLine

_MOST_NAMED = 10


class FulfilmentPlanner:
    """Plans orders, each in one transaction."""

    def __init__(self, ids: IdGenerator, assigning: CarrierAssignment, rules: ShippingPolicy) -> None:
        self._ids = ids
        self._assigning = assigning
        self._rules = rules

    async def plan(self, connection: Connection, due: FulfilmentJob, now: datetime) -> str:
        """Make an order's parcels, once. Call inside a transaction; a word for what became of it.

        Raises `Unsendable` where something about its goods must be mended first.
        """
        order = await orders.lock_order(connection, due.order_id)
        current = await store.get_fulfilment(connection, due.order_id)
        if order is None or current is None or current.status != "pending":
            return "unchanged"
        if order.status not in (OrderStatus.PAID, OrderStatus.CONFIRMED) or await shipment_status.must_not_ship(
            connection, order
        ):
            await store.postpone_fulfilment(
                connection, order.order_id, None, "not sent: its money goes back", park=False
            )
            return "stopped"
        parcels = await self._parcels(connection, order, due)
        await store.insert_fulfilment_lines(connection, order.order_id)
        for parcel in parcels:
            await shipments.add_parcel(connection, parcel, now)
        await store.mark_fulfilment_planned(connection, order.order_id, now, promised_day(self._rules, due.paid_at))
        for shipment in await shipments.shipments_of(connection, order.order_id):
            await self._assigning.assign(connection, shipment, now)
        why = f"it goes in {len(parcels)} parcel{'s' * (len(parcels) > 1)}"
        await orders.advance_status(
            connection, order.order_id, order.status, OrderStatus.FULFILLING, now, shipment_status.ACTOR, why
        )
        return "planned"

    async def _parcels(self, connection: Connection, order: OrderHeader, due: FulfilmentJob) -> list[NewShipment]:
        lines = await store.list_lines_to_plan(connection, order.order_id)
        if unknown := sorted({line.sku for line in lines if line.warehouse_id is None}):
            names = ", ".join(unknown[:_MOST_NAMED]) + (" and others" if len(unknown) > _MOST_NAMED else "")
            raise CannotShip(f"weight, size and warehouse of {names} are not known: import them as goods")
        groups: dict[tuple[int, str], list[LineToPlan]] = defaultdict(list)
        for line in lines:
            assert line.warehouse_id is not None
            groups[line.address_no, line.warehouse_id].append(line)
        addresses = await store.get_ship_to(connection, order.order_id)
        boxes = [
            Box(box.name, box.length_mm, box.width_mm, box.height_mm, box.weight_g, box.max_contents_g)
            for box in self._rules.boxes
        ]
        made: list[tuple[int, str, PackedBox, list[ShipmentLine], int]] = []
        for (address_no, warehouse_id), group in groups.items():
            by_no = {line.line_no: line for line in group}
            items = [
                PackItem(
                    *(line.line_no, line.sku, line.quantity, line.weight_g),
                    *(line.length_mm, line.width_mm, line.height_mm),
                )
                for line in group
            ]
            for packed in pack(items, boxes, self._rules.box_fill_ratio, self._rules.shipments_per_order - len(made)):
                held = [
                    ShipmentLine(no, address_no, by_no[no].sku, units) for no, units in sorted(packed.contents.items())
                ]
                value = sum(by_no[no].unit_price_minor * units for no, units in packed.contents.items())
                made.append((address_no, warehouse_id, packed, held, value))
        cash = sum(amount for _, amount in await shipments.cash_due(connection, order.order_id))
        parts = split_amount(cash, [value for *_, value in made])
        promised_on = promised_day(self._rules, due.paid_at)
        return [
            NewShipment(
                self._ids.new(),
                order.order_id,
                address_no,
                warehouse_id,
                addresses[address_no],
                PackageSize(packed.weight_g, packed.length_mm, packed.width_mm, packed.height_mm),
                value,
                part,
                order.total.currency,
                promised_on,
                held,
            )
            for (address_no, warehouse_id, packed, held, value), part in zip(made, parts, strict=True)
        ]


def split_amount(amount: int, weights: Sequence[int]) -> list[int]:
    """Split an amount by weights, to the last unit; evenly where all weigh nothing."""
    if not sum(weights):
        weights = [1] * len(weights)
    whole, parts, seen, given = sum(weights), [], 0, 0
    for weight in weights:
        seen += weight
        part = amount * seen // whole - given
        given += part
        parts.append(part)
    return parts
