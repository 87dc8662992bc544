"""Gathers the data of labels, packing lists and pick lists, and prints them as PDF."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import tzinfo
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fulfilment import store
from commerce.fulfilment.documents.model import LabelData, PackingLine, PackingList
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.address import Address
from commerce.kernel.optional import require_extra
from commerce.kernel.postgres import Connection, Database
from commerce.shipping import shipment_tasks
from commerce.shipping import store as shipments
from commerce.shipping.errors import NoLabel, NoSuchShipment
from commerce.shipping.model import Shipment, Wave
from commerce.warehouses import store as warehouses

# ruff: noqa: PLC0415  # The libraries are optional, slow to load, and loaded in the thread that draws.


_MODULES = ("reportlab", "fontTools", "segno", "justmytype_intl_cjk", "matplotlib", "arabic_reshaper", "bidi")
"""Libraries and fonts that documents are made with; DejaVu Sans is in Matplotlib."""


class DocumentPrinter:
    """Prints documents. Each is drawn in a thread, since it takes milliseconds of computing.

    All methods raise `NotReady` in an installation without the extra `fulfilment`.
    """

    def __init__(self, db: Database, fulfilment: Fulfilment, timezone: str) -> None:
        self._db = db
        self._fulfilment = fulfilment
        self._zone = ZoneInfo(timezone)

    async def print_label(self, shipment_id: UUID) -> bytes:
        """Print a shipment's label; repeatable.

        Raises `NoSuchShipment`, and `NoLabel` before a carrier is booked.
        """
        async with self._db.snapshot() as connection:
            label = await self._label_data(connection, shipment_id)
        return await asyncio.to_thread(render_label, label)

    async def print_labels(self, wave_id: UUID) -> bytes:
        """Print the labels of all booked shipments of a wave, in its order.

        Raises `NoLabel` if none is booked.
        """
        wave = await self._fulfilment.get_wave(wave_id)
        async with self._db.snapshot() as connection:
            rows = [await shipments.get_shipment(connection, shipment_id) for shipment_id in wave.shipments]
            booked = [shipment.shipment_id for shipment in rows if shipment is not None and shipment.tracking_no]
            if not booked:
                raise NoLabel("no shipment of the wave is booked with a carrier yet")
            labels = [await self._label_data(connection, shipment_id) for shipment_id in booked]
        return await asyncio.to_thread(_draw_labels, labels)

    async def _label_data(self, connection: Connection, shipment_id: UUID) -> LabelData:
        shipment, sender, shipment_count = await self._read(connection, shipment_id)
        if shipment.tracking_no is None or shipment.carrier is None:
            job = await shipment_tasks.get_job(connection, shipment_id)
            reason = job.last_error if job and job.parked else "no carrier is booked for it yet"
            raise NoLabel(f"shipment {shipment.parcel_no} of order {shipment.order_id} has no label: {reason}")
        return LabelData(
            order_id=shipment.order_id,
            parcel_no=shipment.parcel_no,
            shipment_count=shipment_count,
            sender=sender,
            ship_to=shipment.address,
            carrier=shipment.carrier.replace("_", " ").upper(),
            tracking_no=shipment.tracking_no,
            weight_g=shipment.weight_g,
            sort_code=shipment.sort_code,
            cash_to_collect=shipment.cod,
            hold_reason="its booking is being cancelled" if shipment.after_cancel else shipment.held_reason,
        )

    async def _read(self, connection: Connection, shipment_id: UUID) -> tuple[Shipment, Address, int]:
        """Read a shipment, its sender's address, and the number of shipments of its order."""
        shipment = await shipments.get_shipment(connection, shipment_id)
        if shipment is None:
            raise NoSuchShipment(f"there is no shipment {shipment_id}")
        senders = await warehouses.warehouses_of(connection, [shipment.warehouse_id])
        count = await store.count_shipments(connection, shipment.order_id)
        return shipment, senders[shipment.warehouse_id].address, max(count, shipment.parcel_no)

    async def print_packing_list(self, shipment_id: UUID) -> bytes:
        """Print the contents of a shipment, for its box. Raises `NoSuchShipment`."""
        async with self._db.snapshot() as connection:
            shipment, sender, shipment_count = await self._read(connection, shipment_id)
            lines = await store.list_packing_lines(connection, shipment_id)
        packing_list = PackingList(
            order_id=shipment.order_id,
            parcel_no=shipment.parcel_no,
            shipment_count=shipment_count,
            sender=sender,
            ship_to=shipment.address,
            lines=[PackingLine(*line) for line in lines],
        )
        return await asyncio.to_thread(_draw_packing_list, packing_list)

    async def print_pick_list(self, wave_id: UUID) -> bytes:
        """Print the units to pick for a wave, by shelf. Raises `NoSuchWave`."""
        wave = await self._fulfilment.get_wave(wave_id)
        async with self._db.connection() as connection:
            warehouse = (await warehouses.warehouses_of(connection, [wave.warehouse_id]))[wave.warehouse_id]
        return await asyncio.to_thread(_draw_pick_list, wave, warehouse.name, self._zone)


def render_label(label: LabelData) -> bytes:
    """Draw a label in milliseconds; call it in a thread. Raises `NoLabel` if it cannot be printed."""
    require_extra("print labels", "fulfilment", *_MODULES)
    from commerce.fulfilment.documents.label import UnprintableText, draw_label

    try:
        return draw_label(label)
    except UnprintableText as error:
        raise NoLabel(f"cannot print the label of order {label.order_id}: {error}") from None


def _draw_labels(labels: Sequence[LabelData]) -> bytes:
    require_extra("print labels", "fulfilment", *_MODULES)
    from commerce.fulfilment.documents.label import draw_labels

    return draw_labels(labels)


def _draw_packing_list(packing_list: PackingList) -> bytes:
    require_extra("print packing lists", "fulfilment", *_MODULES)
    from commerce.fulfilment.documents.packing_list import draw_packing_list

    return draw_packing_list(packing_list)


def _draw_pick_list(wave: Wave, warehouse: str, zone: tzinfo) -> bytes:
    require_extra("print pick lists", "fulfilment", *_MODULES)
    from commerce.fulfilment.documents.pick_list import draw_pick_list

    return draw_pick_list(wave, warehouse, zone)
