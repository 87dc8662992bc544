"""Parcels that are split, put together, or sent once more. Only what nobody is booked for can change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import CheckViolationError

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import ShipmentLineDetails
from commerce.fulfilment.packing import Box, PackItem, pack
from commerce.fulfilment.planning import split_amount
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
from commerce.shipping.records import NewShipment, PackageSize, ShipmentLine

_S = ShipmentStatus


class Repacking:
    """Changes what parcels hold; each is weighed, measured and rated anew."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, assigning: CarrierAssignment, rules: ShippingPolicy
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._assigning = assigning
        self._rules = rules

    async def split(self, shipment_id: UUID, part: Mapping[int, int], actor: str) -> list[UUID]:
        """Take units (by line of the order) out of a parcel into a new one; the ids of both."""
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            _may_change(shipment)
            if await store.parcels_of_order(connection, order.order_id) >= self._rules.shipments_per_order:
                raise InvalidShipmentState(
                    f"the order has {self._rules.shipments_per_order} parcels, and may not have more"
                )
            now = from_ms(self._clock.now_ms())
            goods = await store.goods_of(connection, shipment_id)
            stays, goes = _divide(goods, part)
            cod_stays, cod_goes = split_amount(shipment.cod_minor, [_value(stays), _value(goes)])
            await self._refill(connection, shipment, stays, cod_stays)
            packed = self._packed(goes)
            parcel = NewShipment(
                self._ids.new(),
                order.order_id,
                shipment.address_no,
                shipment.warehouse_id,
                shipment.address,
                packed,
                _value(goes),
                cod_goes,
                shipment.currency,
                shipment.promised_on,
                _held(goes),
            )
            await shipments.add_parcel(connection, parcel, now)
            await self._noted(connection, shipment_id, now, actor, "a part was put into a parcel of its own")
            await self._noted(connection, parcel.shipment_id, now, actor, f"split off parcel {shipment.parcel_no}")
        return [shipment_id, parcel.shipment_id]

    async def merge(self, shipment_ids: Sequence[UUID], actor: str) -> UUID:
        """Put parcels for one address into the first of them."""
        first, *others = dict.fromkeys(shipment_ids)
        if not others:
            raise Invalid("name two parcels at least")
        async with self._db.transaction() as connection:
            _, target = await shipment_status.lock_shipment(connection, first)
            parcels = [target]
            for id_ in others:
                found = await shipments.shipment(connection, id_)
                if found is None or found.order_id != target.order_id:
                    raise Invalid(f"{id_} is no parcel of the same order")
                parcels.append(found)
            for one in parcels:
                _may_change(one)
                # Two addresses of the order that read the same are counted apart all the same.
                if _way_of(one) != _way_of(target):
                    raise InvalidShipmentState("they do not come from one warehouse or do not go to one address")
            goods = [held for one in parcels for held in await store.goods_of(connection, one.shipment_id)]
            now = from_ms(self._clock.now_ms())
            for one in parcels[1:]:
                why = f"put into parcel {target.parcel_no}"
                await shipment_status.record_step(connection, one, _S.CANCELLED, now, "staff", actor, why)
            await self._refill(connection, target, _summed(goods), sum(one.cod_minor for one in parcels))
            await self._noted(connection, first, now, actor, f"{len(others)} more put into it")
        return first

    async def reship(self, shipment_id: UUID, reason: str, actor: str) -> UUID:
        """Send once more what was lost, came back or was cancelled; the new parcel's id. Once for each parcel."""
        try:
            async with self._db.transaction() as connection:
                order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
                if shipment.status not in (_S.LOST, _S.RETURNED_TO_SENDER, _S.CANCELLED):
                    raise InvalidShipmentState(f"it is {shipment.status}: there is nothing to send once more")
                if await store.is_replaced(connection, shipment_id):
                    raise InvalidShipmentState("it was sent once more already")
                if await shipment_status.must_not_ship(connection, order):
                    raise InvalidShipmentState("cannot ship it: the order is refunded")
                now = from_ms(self._clock.now_ms())
                lines = (await shipments.lines_of(connection, [shipment_id]))[shipment_id]
                parcel = NewShipment(
                    self._ids.new(),
                    order.order_id,
                    shipment.address_no,
                    shipment.warehouse_id,
                    shipment.address,
                    PackageSize(shipment.weight_g, shipment.length_mm, shipment.width_mm, shipment.height_mm),
                    shipment.value_minor,
                    shipment.cod_minor if await shipments.cash_due(connection, order.order_id) else 0,
                    shipment.currency,
                    shipment.promised_on,
                    lines,
                    shipment_id,
                )
                await shipments.add_parcel(connection, parcel, now)
                await store.settle(connection, shipment_id, now, f"sent once more: {reason}")
                await self._noted(connection, parcel.shipment_id, now, actor, f"sent once more: {reason}")
        except CheckViolationError:
            raise InvalidShipmentState("its goods are in other parcels by now") from None
        return parcel.shipment_id

    def _packed(self, goods: Sequence[ShipmentLineDetails]) -> PackageSize:
        """Raises `NotNow` where it takes more than one box."""
        boxes = [
            Box(box.name, box.length_mm, box.width_mm, box.height_mm, box.weight_g, box.max_contents_g)
            for box in self._rules.boxes
        ]
        items = [
            PackItem(one.line_no, one.sku, one.quantity, one.weight_g, one.length_mm, one.width_mm, one.height_mm)
            for one in goods
        ]
        found = pack(items, boxes, self._rules.box_fill_ratio, len(items) + sum(item.quantity for item in items))
        if len(found) > 1:
            raise InvalidShipmentState(f"it takes {len(found)} parcels")
        only = found[0]
        return PackageSize(only.weight_g, only.length_mm, only.width_mm, only.height_mm)

    async def _refill(
        self, connection: Connection, shipment: Shipment, goods: Sequence[ShipmentLineDetails], cod: int
    ) -> None:
        packed, id_ = self._packed(goods), shipment.shipment_id
        await shipments.update_fulfilment_lines(connection, id_, planned=-1)
        await shipments.drop_lines(connection, id_)
        await shipments.put_lines(connection, id_, shipment.order_id, _held(goods))
        await shipments.update_fulfilment_lines(connection, id_, planned=1)
        await shipments.resize(connection, id_, packed, _value(goods), cod)

    async def _noted(self, connection: Connection, shipment_id: UUID, now: datetime, actor: str, text: str) -> None:
        """Rate it anew and write down what was done."""
        shipment = await shipments.shipment(connection, shipment_id)
        assert shipment is not None
        await self._assigning.assign(connection, shipment, now)
        await shipment_status.record_note(connection, shipment, now, "staff", actor, text)


def _way_of(shipment: Shipment) -> tuple[str, int, Address]:
    return shipment.warehouse_id, shipment.address_no, shipment.address


def _may_change(shipment: Shipment) -> None:
    if shipment.held_reason is not None:
        raise InvalidShipmentState(f"parcel {shipment.parcel_no} is held: {shipment.held_reason}")
    if shipment.status is not _S.PLANNED or shipment.booking_id is not None:
        raise InvalidShipmentState(
            f"parcel {shipment.parcel_no} is {shipment.status} and somebody may come for it: cancel that first"
        )


def _divide(
    goods: Sequence[ShipmentLineDetails], part: Mapping[int, int]
) -> tuple[list[ShipmentLineDetails], list[ShipmentLineDetails]]:
    held = {one.line_no: one for one in goods}
    for line, units in part.items():
        if line not in held or not 0 < units <= held[line].quantity:
            raise Invalid(f"the parcel does not hold {units} units of line {line}")
    stays = [one._replace(quantity=one.quantity - part.get(one.line_no, 0)) for one in goods]
    goes = [held[line]._replace(quantity=units) for line, units in sorted(part.items())]
    stays = [one for one in stays if one.quantity]
    if not stays:
        raise Invalid("nothing would stay in the parcel")
    return stays, goes


def _summed(goods: Sequence[ShipmentLineDetails]) -> list[ShipmentLineDetails]:
    """One entry a line."""
    units: dict[int, int] = defaultdict(int)
    for one in goods:
        units[one.line_no] += one.quantity
    by_line = {one.line_no: one for one in goods}
    return [by_line[line]._replace(quantity=count) for line, count in sorted(units.items())]


def _value(goods: Sequence[ShipmentLineDetails]) -> int:
    return sum(one.unit_price_minor * one.quantity for one in goods)


def _held(goods: Sequence[ShipmentLineDetails]) -> list[ShipmentLine]:
    return [ShipmentLine(one.line_no, one.address_no, one.sku, one.quantity) for one in goods]
