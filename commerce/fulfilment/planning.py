"""Plans the shipments of a paid order: by address, by warehouse, by box.

Again, when units of a shipment that was stopped are still wanted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal, NamedTuple
from uuid import UUID

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import LineToPlan
from commerce.fulfilment.packing import PackedBox, PackItem, pack
from commerce.fulfilment.warehouse_choice import WarehouseChoice
from commerce.kernel.address import Address
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader, StatusStep
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import ShippingPolicy, promised_day
from commerce.shipping.records import NewShipment, PackageSize, ShipmentLine
from commerce.warehouse_stock.store import lock_held_units
from commerce.warehouses.store import warehouses_of

_MAX_NAMED_SKUS = 10
_PLANNABLE = (OrderStatus.PAID, OrderStatus.CONFIRMED, OrderStatus.FULFILLING, OrderStatus.SHIPPED)
PlanResult = Literal["planned", "unchanged", "stopped"] | CannotShip


class _PlannedBox(NamedTuple):
    """A packed box with its destination, its lines, their value and what was paid for them in minor units."""

    address_no: int
    warehouse_id: str
    packed: PackedBox
    lines: list[ShipmentLine]
    value_minor: int
    paid_minor: int


class FulfilmentPlanner:
    """Plans orders: creates their shipments and assigns carriers. A repeat changes nothing.

    Results are `planned`, `unchanged`, `stopped` if an order is cancelled or refunded, or the `CannotShip` that says
    what staff must fix first."""

    def __init__(self, ids: IdGenerator, assignment: CarrierAssignment, policy: ShippingPolicy) -> None:
        self._ids = ids
        self._assignment = assignment
        self._policy = policy

    async def plan(self, connection: Connection, order_id: UUID, now: datetime) -> PlanResult:
        """Plan an order, and wait for its lock. Call inside a transaction."""
        order = await orders.lock_order(connection, order_id)
        return "unchanged" if order is None else (await self._plan_locked(connection, [order], now))[order_id]

    async def plan_free(
        self, connection: Connection, order_ids: Sequence[UUID], now: datetime
    ) -> dict[UUID, PlanResult]:
        """Plan orders without those that are locked, and return results by order.

        Call inside a transaction."""
        headers = await orders.lock_free_orders(connection, order_ids)
        return await self._plan_locked(connection, list(headers.values()), now)

    async def _plan_locked(
        self, connection: Connection, headers: Sequence[OrderHeader], now: datetime
    ) -> dict[UUID, PlanResult]:
        results: dict[UUID, PlanResult] = dict.fromkeys((order.order_id for order in headers), "unchanged")
        states = await store.get_fulfilments(connection, list(results))
        to_plan = {
            order.order_id: order
            for order in headers
            if (state := states.get(order.order_id)) is not None and state.status in ("pending", "planned")
        }
        unshippable = await shipment_status.list_unshippable(connection, list(to_plan.values()))
        for order_id, order in list(to_plan.items()):
            if order.status not in _PLANNABLE or order_id in unshippable:
                results[order_id] = "stopped"
                del to_plan[order_id]
        promised_on = {order_id: promised_day(self._policy, states[order_id].paid_at) for order_id in to_plan}
        planned = await self._plan_shipments(connection, to_plan, promised_on, results)
        if planned:
            await self._store(connection, to_plan, planned, promised_on, now)
            results |= dict.fromkeys(planned, "planned")
        return results

    async def _plan_shipments(
        self,
        connection: Connection,
        to_plan: Mapping[UUID, OrderHeader],
        promised_on: Mapping[UUID, date],
        results: dict[UUID, PlanResult],
    ) -> dict[UUID, list[NewShipment]]:
        """Pack units that are in no shipment. Adds to the results the orders that cannot be shipped."""
        ids = list(to_plan)
        if not ids:
            return {}
        lines = await store.list_lines_to_plan(connection, ids)
        cash_minor = await store.sum_cash_to_collect(connection, ids)
        addresses = await store.read_ship_to(connection, ids)
        stock = await _read_stock(connection, to_plan, lines)
        planned = dict[UUID, list[NewShipment]]()
        for order_id, order in to_plan.items():
            if not lines[order_id]:
                continue
            try:
                chosen = stock.choose(order.sale_id, lines[order_id], addresses[order_id])
                boxes = self._pack_lines(chosen)
            except CannotShip as error:
                results[order_id] = error
                continue
            stock.take(order.sale_id, chosen)
            cod_shares = split_amount(cash_minor.get(order_id, 0), [box.paid_minor for box in boxes])
            planned[order_id] = [
                self._new_shipment(order, box, cod_minor, addresses[order_id][box.address_no], promised_on[order_id])
                for box, cod_minor in zip(boxes, cod_shares, strict=True)
            ]
        return planned

    def _new_shipment(
        self, order: OrderHeader, box: _PlannedBox, cod_minor: int, address: Address, promised_on: date
    ) -> NewShipment:
        return NewShipment(
            shipment_id=self._ids.new(),
            order_id=order.order_id,
            address_no=box.address_no,
            warehouse_id=box.warehouse_id,
            address=address,
            size=package_size(box.packed),
            value_minor=box.value_minor,
            cod_minor=cod_minor,
            currency=order.total.currency,
            promised_on=promised_on,
            lines=box.lines,
        )

    async def _store(
        self,
        connection: Connection,
        orders_to_plan: Mapping[UUID, OrderHeader],
        planned: Mapping[UUID, Sequence[NewShipment]],
        promised_on: Mapping[UUID, date],
        now: datetime,
    ) -> None:
        """Insert the shipments of orders, and assign their carriers."""
        new_shipments = [shipment for part in planned.values() for shipment in part]
        await store.insert_fulfilment_lines(connection, list(planned))
        await shipments.insert_shipments(connection, new_shipments, now)
        days = {order_id: promised_on[order_id] for order_id in planned}
        await store.mark_fulfilments_planned(connection, days, now)
        stored = await shipments.get_shipments(connection, [shipment.shipment_id for shipment in new_shipments])
        await self._assignment.assign_all(connection, list(stored.values()), now)
        steps = [
            StatusStep(order_id, orders_to_plan[order_id].status, OrderStatus.FULFILLING, _reason(len(part)))
            for order_id, part in planned.items()
            if orders_to_plan[order_id].status in (OrderStatus.PAID, OrderStatus.CONFIRMED)
        ]
        await orders.advance_statuses(connection, steps, now, shipment_status.ACTOR)

    def _pack_lines(self, lines: Sequence[LineToPlan]) -> list[_PlannedBox]:
        """Pack the lines of each address from each warehouse. Raises `CannotShip`."""
        if unknown := sorted({line.sku for line in lines if line.warehouse_id is None or not line.weight_g}):
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


async def _read_stock(
    connection: Connection, to_plan: Mapping[UUID, OrderHeader], lines: Mapping[UUID, Sequence[LineToPlan]]
) -> WarehouseChoice:
    """Read what warehouses can ship of the orders' lines, and lock what is allotted to their sales."""
    items = {(order.sale_id, line.sku) for order_id, order in to_plan.items() for line in lines[order_id]}
    held = await lock_held_units(connection, items)
    warehouses = await warehouses_of(connection, {units.warehouse_id for units in held}) if held else {}
    return WarehouseChoice(held, warehouses)


def _reason(count: int) -> str:
    return f"planned as {count} shipment{'s' * (count > 1)}"


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
    paid_minor = sum(line_of[line_no].paid_minor * units for line_no, units in packed.contents.items())
    return _PlannedBox(address_no, warehouse_id, packed, lines, value_minor, paid_minor)


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
