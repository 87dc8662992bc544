"""Plans the shipments of a paid order: by address, by warehouse, by box."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import LineToPlan
from commerce.fulfilment.packing import PackedBox, PackItem, pack
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import store as payments
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import ShippingPolicy, promised_day
from commerce.shipping.records import NewShipment, PackageSize, ShipmentLine

_MAX_NAMED_SKUS = 10


class _PlannedBox(NamedTuple):
    """A packed box with its destination, the lines in it and their value in minor units."""

    address_no: int
    warehouse_id: str
    packed: PackedBox
    lines: list[ShipmentLine]
    value_minor: int


class FulfilmentPlanner:
    """Plans orders, each in one transaction."""

    def __init__(self, ids: IdGenerator, assignment: CarrierAssignment, policy: ShippingPolicy) -> None:
        self._ids = ids
        self._assignment = assignment
        self._policy = policy

    async def plan(self, connection: Connection, order_id: UUID, now: datetime) -> str:
        """Create the shipments of an order and assign their carriers. A repeat changes nothing.

        Call inside a transaction; the order lock is taken here. Returns `planned`, `unchanged`, or `stopped` if the
        order is cancelled or refunded. Raises `CannotShip` if staff must fix something first.
        """
        order = await orders.lock_order(connection, order_id)
        current = await store.get_fulfilment(connection, order_id)
        if order is None or current is None or current.status != "pending":
            return "unchanged"
        is_paid = order.status in (OrderStatus.PAID, OrderStatus.CONFIRMED)
        if not is_paid or await shipment_status.must_not_ship(connection, order):
            return "stopped"
        promised_on = promised_day(self._policy, current.paid_at)
        new_shipments = await self._plan_shipments(connection, order, promised_on)
        await store.insert_fulfilment_lines(connection, order.order_id)
        for shipment in new_shipments:
            await shipments.insert_shipment(connection, shipment, now)
        await store.mark_fulfilment_planned(connection, order.order_id, now, promised_on)
        for planned in await shipments.list_shipments(connection, order.order_id):
            await self._assignment.assign(connection, planned, now)
        reason = f"planned as {len(new_shipments)} shipment{'s' * (len(new_shipments) > 1)}"
        await orders.advance_status(
            connection, order.order_id, order.status, OrderStatus.FULFILLING, now, shipment_status.ACTOR, reason
        )
        return "planned"

    async def _plan_shipments(self, connection: Connection, order: OrderHeader, promised_on: date) -> list[NewShipment]:
        boxes = self._pack_lines(await store.list_lines_to_plan(connection, order.order_id))
        cash_minor = sum(amount for _, amount in await payments.list_cash_due(connection, order.order_id))
        cod_shares = split_amount(cash_minor, [box.value_minor for box in boxes])
        addresses = await store.get_ship_to(connection, order.order_id)
        return [
            NewShipment(
                shipment_id=self._ids.new(),
                order_id=order.order_id,
                address_no=box.address_no,
                warehouse_id=box.warehouse_id,
                address=addresses[box.address_no],
                size=package_size(box.packed),
                value_minor=box.value_minor,
                cod_minor=cod_minor,
                currency=order.total.currency,
                promised_on=promised_on,
                lines=box.lines,
            )
            for box, cod_minor in zip(boxes, cod_shares, strict=True)
        ]

    def _pack_lines(self, lines: Sequence[LineToPlan]) -> list[_PlannedBox]:
        """Pack the lines of each address from each warehouse. Raises `CannotShip`."""
        if unknown := sorted({line.sku for line in lines if line.warehouse_id is None}):
            names = ", ".join(unknown[:_MAX_NAMED_SKUS]) + (" and others" if len(unknown) > _MAX_NAMED_SKUS else "")
            raise CannotShip(f"weight, size and warehouse of {names} are unknown; import the product logistics")
        groups: dict[tuple[int, str], list[LineToPlan]] = defaultdict(list)
        for line in lines:
            assert line.warehouse_id is not None
            groups[line.address_no, line.warehouse_id].append(line)
        policy = self._policy
        boxes: list[_PlannedBox] = []
        for (address_no, warehouse_id), group in groups.items():
            items = [_pack_item(line) for line in group]
            max_boxes = policy.shipments_per_order - len(boxes)
            packed_boxes = pack(items, policy.boxes, policy.box_fill_ratio, max_boxes)
            boxes += [_planned_box(address_no, warehouse_id, packed, group) for packed in packed_boxes]
        return boxes


def _pack_item(line: LineToPlan) -> PackItem:
    return PackItem(
        line_no=line.line_no,
        sku=line.sku,
        quantity=line.quantity,
        weight_g=line.weight_g,
        length_mm=line.length_mm,
        width_mm=line.width_mm,
        height_mm=line.height_mm,
    )


def _planned_box(address_no: int, warehouse_id: str, packed: PackedBox, group: Sequence[LineToPlan]) -> _PlannedBox:
    line_of = {line.line_no: line for line in group}
    lines = [
        ShipmentLine(line_no, address_no, line_of[line_no].sku, units)
        for line_no, units in sorted(packed.contents.items())
    ]
    value_minor = sum(line_of[line_no].unit_price_minor * units for line_no, units in packed.contents.items())
    return _PlannedBox(address_no, warehouse_id, packed, lines, value_minor)


def package_size(packed: PackedBox) -> PackageSize:
    """Return the weight and outer sides of a packed box."""
    return PackageSize(packed.weight_g, packed.length_mm, packed.width_mm, packed.height_mm)


def split_amount(amount: int, weights: Sequence[int]) -> list[int]:
    """Split an amount in minor units in proportion to weights, exactly; evenly if all weights are 0."""
    if not sum(weights):
        weights = [1] * len(weights)
    total, shares, weight_so_far, amount_so_far = sum(weights), [], 0, 0
    for weight in weights:
        weight_so_far += weight
        share = amount * weight_so_far // total - amount_so_far
        amount_so_far += share
        shares.append(share)
    return shares
