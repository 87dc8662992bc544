"""Tracking events of return shipments from webhooks of carriers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from commerce.kernel.postgres import Connection
from commerce.return_shipments import store
from commerce.return_shipments.return_status import CaseHook, ReturnSteps, lock_return
from commerce.shipping.carrier_port import ShipmentUpdate
from commerce.shipping.carrier_webhooks import OtherShipment
from commerce.shipping.records import CarrierNumber
from commerce.shipping.tracking import TrackingResult, by_key


class ReturnShipmentUpdates:
    """Implements `commerce.shipping.carrier_webhooks.OtherShipments`."""

    def __init__(self, on_step: CaseHook) -> None:
        self._steps = ReturnSteps(on_step)

    async def find(
        self, connection: Connection, numbers: Collection[CarrierNumber]
    ) -> Mapping[CarrierNumber, OtherShipment]:
        keys = await store.find_by_tracking_nos(connection, numbers)
        return {number: OtherShipment(*key) for number, key in keys.items()}

    async def apply(
        self, connection: Connection, shipment: OtherShipment, update: ShipmentUpdate, system: str, now: datetime
    ) -> TrackingResult:
        locked = await lock_return(connection, shipment.shipment_id)
        return await self._steps.apply_events(connection, locked, by_key(update.events), "webhook", system, now)
