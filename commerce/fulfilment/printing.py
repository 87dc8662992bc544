"""What is printed for a parcel or a wave: gathers what the documents say."""

from __future__ import annotations

import asyncio
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fulfilment import documents, store
from commerce.fulfilment.documents import LabelData, PackingLine, PackingList
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection, Database
from commerce.shipping import store as shipments
from commerce.shipping.errors import NoLabel, NoSuchShipment
from commerce.shipping.model import Shipment
from commerce.warehouses import store as warehouses


class DocumentPrinter:
    """PDFs, made in a thread: each takes milliseconds of computing."""

    def __init__(self, db: Database, desk: Fulfilment, timezone: str) -> None:
        self._db = db
        self._desk = desk
        self._zone = ZoneInfo(timezone)

    async def label(self, shipment_id: UUID) -> bytes:
        """A parcel's label, as often as one likes. Raises `NoSuchShipment`, `NoLabel` before a carrier is booked."""
        async with self._db.snapshot() as connection:
            data = await self._label(connection, shipment_id)
        return await asyncio.to_thread(documents.label, data)

    async def labels(self, wave_id: UUID) -> bytes:
        """The labels of all parcels of a wave that are booked, in the wave's order. Raises `NoLabel` if none is."""
        wave = await self._desk.wave(wave_id)
        async with self._db.snapshot() as connection:
            found = [await shipments.shipment(connection, id_) for id_ in wave.shipments]
            booked = [one.shipment_id for one in found if one is not None and one.tracking_no is not None]
            if not booked:
                raise NoLabel("no parcel of the wave is booked with a carrier yet")
            data = [await self._label(connection, id_) for id_ in booked]
        return await asyncio.to_thread(documents.labels, data)

    async def _label(self, connection: Connection, shipment_id: UUID) -> LabelData:
        shipment, sender, parcels = await self._about(connection, shipment_id)
        if shipment.tracking_no is None or shipment.carrier is None:
            why = shipment.last_error if shipment.parked else "no carrier is booked for it yet"
            raise NoLabel(f"parcel {shipment.parcel_no} of order {shipment.order_id} has no label: {why}")
        held = "its booking is being cancelled" if shipment.task == "cancel" else shipment.held_reason
        return LabelData(
            shipment.order_id,
            shipment.parcel_no,
            parcels,
            sender,
            shipment.address,
            shipment.carrier.replace("_", " ").upper(),
            shipment.tracking_no,
            shipment.weight_g,
            None,
            shipment.sort_code,
            shipment.cod,
            held,
        )

    async def _about(self, connection: Connection, shipment_id: UUID) -> tuple[Shipment, Address, int]:
        """A parcel, who sends it, and how many there are of the order."""
        shipment = await shipments.shipment(connection, shipment_id)
        if shipment is None:
            raise NoSuchShipment(f"there is no shipment {shipment_id}")
        senders = await warehouses.warehouses_of(connection, [shipment.warehouse_id])
        parcels = await store.parcels_of_order(connection, shipment.order_id)
        return shipment, senders[shipment.warehouse_id].address, max(parcels, shipment.parcel_no)

    async def packing_list(self, shipment_id: UUID) -> bytes:
        """What is in a parcel, for its box. Raises `NoSuchShipment`."""
        async with self._db.snapshot() as connection:
            shipment, sender, parcels = await self._about(connection, shipment_id)
            contents = await store.packing_lines(connection, shipment_id)
        lines = [PackingLine(*line) for line in contents]
        data = PackingList(shipment.order_id, shipment.parcel_no, parcels, sender, shipment.address, lines)
        return await asyncio.to_thread(documents.packing_list, data)

    async def pick_list(self, wave_id: UUID) -> bytes:
        """What is to be fetched for a wave, shelf by shelf. Raises `NoSuchShipment`."""
        wave = await self._desk.wave(wave_id)
        async with self._db.connection() as connection:
            names = await warehouses.warehouses_of(connection, [wave.warehouse_id])
        return await asyncio.to_thread(documents.pick_list, wave, names[wave.warehouse_id].name, self._zone)
