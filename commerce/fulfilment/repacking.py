"""Splits, merges and reships shipments. Only shipments without a booking can be split or merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import CheckViolationError

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import ShipmentLineDetails
from commerce.fulfilment.packing import PackItem, pack
from commerce.fulfilment.planning import package_size, split_amount
from commerce.kernel.address import Address
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.errors import InvalidShipmentState
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import NewShipment, PackageSize, ShipmentLine, UnitMove
from commerce.warehouse_stock.store import ReturnedStock, return_units

_RESHIPPABLE = (ShipmentStatus.LOST, ShipmentStatus.RETURNED_TO_SENDER, ShipmentStatus.CANCELLED)


class Repacking:
    """Changes the contents of shipments. Weight, size and carrier of each are computed again."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, assignment: CarrierAssignment, policy: ShippingPolicy
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._assignment = assignment
        self._policy = policy

    async def split(self, shipment_id: UUID, units_of: Mapping[int, int], actor: str) -> list[UUID]:
        """Move units, by line number of the order, into a new shipment. Returns both ids, the new one last.

        Value and cash on delivery are divided by the value of the units. Raises `NoSuchShipment`,
        `InvalidShipmentState`, and `Invalid` for units that the shipment does not hold.
        """
        max_shipments = self._policy.shipments_per_order
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            _require_changeable(shipment)
            if await store.count_shipments(connection, order.order_id) >= max_shipments:
                raise InvalidShipmentState(f"the order has {max_shipments} shipments, and may not have more")
            now = from_ms(self._clock.now_ms())
            kept, moved = _divide(await store.list_line_details(connection, shipment_id), units_of)
            cod_kept, cod_moved = split_amount(shipment.cod_minor, [_value(kept), _value(moved)])
            await self._replace_lines(connection, shipment, kept, cod_kept)
            new_shipment = NewShipment(
                shipment_id=self._ids.new(),
                order_id=order.order_id,
                address_no=shipment.address_no,
                warehouse_id=shipment.warehouse_id,
                address=shipment.address,
                size=self._pack_into_one(moved),
                value_minor=_value(moved),
                cod_minor=cod_moved,
                currency=shipment.currency,
                promised_on=shipment.promised_on,
                lines=_shipment_lines(moved),
            )
            new_id = new_shipment.shipment_id
            await shipments.insert_shipments(connection, [new_shipment], now)
            await self._assign_and_note(connection, shipment_id, now, actor, "a part was moved to a new shipment")
            await self._assign_and_note(connection, new_id, now, actor, f"split from shipment {shipment.parcel_no}")
        return [shipment_id, new_id]

    async def merge(self, shipment_ids: Sequence[UUID], actor: str) -> UUID:
        """Merge shipments of an order, from one warehouse to one address, into the first, and return its id.

        Raises `NoSuchShipment`, `InvalidShipmentState`, and `Invalid` for fewer than two or for another order.
        """
        first_id, *other_ids = dict.fromkeys(shipment_ids)
        if not other_ids:
            raise Invalid("cannot merge a shipment: name two at least")
        async with self._db.transaction() as connection:
            _, target = await shipment_status.lock_shipment(connection, first_id)
            others = [await self._read_of_order(connection, id_, target.order_id) for id_ in other_ids]
            merged = [target, *others]
            for shipment in merged:
                _require_changeable(shipment)
                # Two addresses of the order with the same text are still counted by address number.
                if _route_key(shipment) != _route_key(target):
                    raise InvalidShipmentState("they do not have the same warehouse and address")
            lines = [line for each in merged for line in await store.list_line_details(connection, each.shipment_id)]
            now = from_ms(self._clock.now_ms())
            for shipment in others:
                await shipment_status.record_step(
                    *(connection, shipment, ShipmentStatus.CANCELLED, now),
                    *("staff", actor, f"merged into shipment {target.parcel_no}"),
                )
            resolution = f"merged into shipment {target.parcel_no}"
            await store.resolve_shipments(connection, other_ids, now, resolution, all_units=True)
            cod_minor = sum(shipment.cod_minor for shipment in merged)
            await self._replace_lines(connection, target, _sum_by_line(lines), cod_minor)
            note = f"{len(others)} shipment{'s' * (len(others) > 1)} merged into it"
            await self._assign_and_note(connection, first_id, now, actor, note)
        return first_id

    async def _read_of_order(self, connection: Connection, shipment_id: UUID, order_id: UUID) -> Shipment:
        shipment = await shipments.get_shipment(connection, shipment_id)
        if shipment is None or shipment.order_id != order_id:
            raise Invalid(f"{shipment_id} is not a shipment of the same order")
        return shipment

    async def reship(self, shipment_id: UUID, reason: str, actor: str) -> UUID:
        """Send the contents of a lost, returned or cancelled shipment again, once.

        Returns the id of the new shipment.

        Raises `NoSuchShipment`, and `InvalidShipmentState` if it was reshipped before or must not be sent again.
        """
        try:
            async with self._db.transaction() as connection:
                return await self._reship(connection, shipment_id, reason, actor)
        except CheckViolationError as error:
            if error.constraint_name == "allotments_units":
                raise InvalidShipmentState(f"{error}; receive, count or move some first") from None
            raise InvalidShipmentState("its units are in other shipments by now") from None

    async def _reship(self, connection: Connection, shipment_id: UUID, reason: str, actor: str) -> UUID:
        order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
        if shipment.status not in _RESHIPPABLE:
            raise InvalidShipmentState(f"it is {shipment.status}: only a lost, returned or cancelled one is reshipped")
        if await store.is_reshipped(connection, shipment_id):
            raise InvalidShipmentState("it was reshipped already")
        if await shipment_status.must_not_ship(connection, order):
            raise InvalidShipmentState("cannot ship it: the order is refunded")
        now = from_ms(self._clock.now_ms())
        contents = (await shipments.list_shipment_lines(connection, [shipment_id]))[shipment_id]
        units_left = {line.line_no: line.undecided for line in contents}
        lines = await self._list_lines_left(connection, shipment_id, units_left)
        cash_minor = await store.sum_cash_to_collect(connection, [order.order_id])
        new_shipment = NewShipment(
            shipment_id=self._ids.new(),
            order_id=order.order_id,
            address_no=shipment.address_no,
            warehouse_id=shipment.warehouse_id,
            address=shipment.address,
            size=PackageSize(shipment.weight_g, shipment.length_mm, shipment.width_mm, shipment.height_mm),
            value_minor=_value(lines),
            cod_minor=min(shipment.cod_minor, cash_minor.get(order.order_id, 0)),
            currency=shipment.currency,
            promised_on=shipment.promised_on,
            lines=_shipment_lines(lines),
            replaces=shipment_id,
        )
        if shipment.status is ShipmentStatus.RETURNED_TO_SENDER:
            await _return_units(connection, shipment, lines, now, actor)
        await shipments.insert_shipments(connection, [new_shipment], now)
        await store.resolve_shipments(connection, [shipment_id], now, f"reshipped: {reason}", all_units=True)
        await self._assign_and_note(connection, new_shipment.shipment_id, now, actor, f"reshipped: {reason}")
        return new_shipment.shipment_id

    async def _list_lines_left(
        self, connection: Connection, shipment_id: UUID, units_left: Mapping[int, int]
    ) -> list[ShipmentLineDetails]:
        """List the units of a shipment that are not in other shipments by now, nor cancelled.

        Raises `InvalidShipmentState` if there are none."""
        details = await store.list_line_details(connection, shipment_id)
        lines = [line._replace(quantity=units_left[line.line_no]) for line in details if units_left[line.line_no]]
        if not lines:
            raise InvalidShipmentState("its units are in other shipments by now, or cancelled")
        return lines

    def _pack_into_one(self, lines: Sequence[ShipmentLineDetails]) -> PackageSize:
        """Return the size of one box that holds all lines. Raises `InvalidShipmentState` if there is none."""
        items = [
            PackItem(
                line_no=line.line_no,
                sku=line.sku,
                quantity=line.quantity,
                weight_g=line.weight_g,
                length_mm=line.length_mm,
                width_mm=line.width_mm,
                height_mm=line.height_mm,
            )
            for line in lines
        ]
        max_boxes = len(items) + sum(item.quantity for item in items)
        packed = pack(items, self._policy.boxes, self._policy.box_fill_ratio, max_boxes)
        if len(packed) > 1:
            raise InvalidShipmentState(f"it needs {len(packed)} boxes")
        return package_size(packed[0])

    async def _replace_lines(
        self, connection: Connection, shipment: Shipment, lines: Sequence[ShipmentLineDetails], cod_minor: int
    ) -> None:
        size, id_ = self._pack_into_one(lines), shipment.shipment_id
        await shipments.update_fulfilment_lines(connection, [UnitMove(id_, planned=-1)])
        await shipments.delete_shipment_lines(connection, id_)
        await shipments.insert_shipment_lines(connection, id_, shipment.order_id, _shipment_lines(lines))
        await shipments.update_fulfilment_lines(connection, [UnitMove(id_, planned=1)])
        await shipments.resize_shipment(connection, id_, size, _value(lines), cod_minor)

    async def _assign_and_note(
        self, connection: Connection, shipment_id: UUID, now: datetime, actor: str, note: str
    ) -> None:
        """Choose the carrier again for the changed shipment, and record the change."""
        shipment = await shipments.get_shipment(connection, shipment_id)
        assert shipment is not None
        await self._assignment.assign(connection, shipment, now)
        await shipment_status.record_note(connection, shipment, now, "staff", actor, note)


async def _return_units(
    connection: Connection, shipment: Shipment, lines: Sequence[ShipmentLineDetails], now: datetime, actor: str
) -> None:
    """Record the units that a carrier brought back, and that are sent again."""
    units: dict[str, int] = defaultdict(int)
    for line in lines:
        units[line.sku] += line.quantity
    returned = [ReturnedStock(sku, shipment.warehouse_id, count, is_resold=True) for sku, count in units.items()]
    reference = "a carrier brought it back"
    await return_units(connection, shipment.order_id, None, reference, actor, now, returned)


def _route_key(shipment: Shipment) -> tuple[str, int, Address]:
    return shipment.warehouse_id, shipment.address_no, shipment.address


def _require_changeable(shipment: Shipment) -> None:
    if shipment.held_reason is not None:
        raise InvalidShipmentState(f"shipment {shipment.parcel_no} is held: {shipment.held_reason}")
    if shipment.status is not ShipmentStatus.PLANNED or shipment.booking_id is not None:
        raise InvalidShipmentState(
            f"shipment {shipment.parcel_no} is {shipment.status}, and a carrier may collect it; cancel that first"
        )


def _divide(
    lines: Sequence[ShipmentLineDetails], units_of: Mapping[int, int]
) -> tuple[list[ShipmentLineDetails], list[ShipmentLineDetails]]:
    """Divide lines into those kept and those moved. Raises `Invalid`."""
    line_of = {line.line_no: line for line in lines}
    for line_no, units in units_of.items():
        if line_no not in line_of or not 0 < units <= line_of[line_no].quantity:
            raise Invalid(f"the shipment does not hold {units} units of line {line_no}")
    reduced = [line._replace(quantity=line.quantity - units_of.get(line.line_no, 0)) for line in lines]
    kept = [line for line in reduced if line.quantity]
    if not kept:
        raise Invalid("cannot move all units: the shipment would be empty")
    return kept, [line_of[line_no]._replace(quantity=units) for line_no, units in sorted(units_of.items())]


def _sum_by_line(lines: Sequence[ShipmentLineDetails]) -> list[ShipmentLineDetails]:
    units_of: dict[int, int] = defaultdict(int)
    for line in lines:
        units_of[line.line_no] += line.quantity
    line_of = {line.line_no: line for line in lines}
    return [line_of[line_no]._replace(quantity=units) for line_no, units in sorted(units_of.items())]


def _value(lines: Sequence[ShipmentLineDetails]) -> int:
    return sum(line.unit_price_minor * line.quantity for line in lines)


def _shipment_lines(lines: Sequence[ShipmentLineDetails]) -> list[ShipmentLine]:
    return [ShipmentLine(line.line_no, line.address_no, line.sku, line.quantity) for line in lines]
