"""Labels of return shipments, which customers print and put on the box."""

from __future__ import annotations

import asyncio
from uuid import UUID

from commerce.fulfilment.documents.model import LabelData
from commerce.fulfilment.printing import render_label
from commerce.kernel.address import Address
from commerce.kernel.postgres import Database
from commerce.return_shipments import store
from commerce.return_shipments.errors import NoSuchReturnShipment
from commerce.return_shipments.model import ReturnShipment, ReturnStatus
from commerce.shipping.errors import NoLabel
from commerce.warehouses import store as warehouses

_SERVICE = "退货 Return"


class ReturnLabels:
    """Prints labels of return shipments.

    Raises `NotReady` in an installation without the extra `fulfilment`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def print_label(self, return_shipment_id: UUID, user_id: str | None = None) -> bytes:
        """Print a label as PDF; for staff (`user_id` None) that of any customer. Repeatable.

        Raises `NoSuchReturnShipment`, and `NoLabel` where no carrier is booked by the shop.
        """
        async with self._db.snapshot() as connection:
            shipment = await store.get_shipment(connection, return_shipment_id)
            if shipment is None or user_id not in (None, shipment.user_id):
                raise NoSuchReturnShipment(f"there is no return shipment {return_shipment_id}")
            shipments = await store.list_shipments_of_case(connection, shipment.case_id)
            [warehouse] = (await warehouses.warehouses_of(connection, [shipment.warehouse_id])).values()
        return await asyncio.to_thread(render_label, _describe(shipment, shipments, warehouse.address))


def _describe(shipment: ReturnShipment, shipments: list[ReturnShipment], ship_to: Address) -> LabelData:
    """Return the label of one of the return shipments of a case. Raises `NoLabel`."""
    if reason := _find_obstacle(shipment):
        raise NoLabel(f"the return shipment of order {shipment.order_id} has no label: {reason}")
    assert shipment.carrier is not None
    assert shipment.tracking_no is not None
    expected = [other.return_shipment_id for other in shipments if other.status is not ReturnStatus.CANCELLED]
    return LabelData(
        order_id=shipment.order_id,
        parcel_no=expected.index(shipment.return_shipment_id) + 1,
        shipment_count=len(expected),
        sender=shipment.from_address,
        ship_to=ship_to,
        carrier=shipment.carrier.replace("_", " ").upper(),
        tracking_no=shipment.tracking_no,
        weight_g=shipment.weight_g,
        service=_SERVICE,
        sort_code=shipment.sort_code,
        hold_reason="its booking is being cancelled" if shipment.is_cancelling else None,
    )


def _find_obstacle(shipment: ReturnShipment) -> str | None:
    if shipment.booked_by == "customer":
        return "the customer's own carrier makes it"
    if shipment.status is ReturnStatus.CANCELLED:
        return "it is cancelled"
    if shipment.tracking_no is None:
        return "no carrier is booked for it yet"
    return None
