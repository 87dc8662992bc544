"""The one place that derives an order's status from the quantities of its units, without any I/O.

Steps of shipments and cancellations both end here. `commerce.shipping.shipment_status` stores what it decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from commerce.orders.model import OrderStatus
from commerce.shipping.model import ShipmentStatus
from commerce.shipping.records import FulfilmentTotals


def derive_status(totals: FulfilmentTotals) -> OrderStatus:
    """Return the status of a paid or confirmed order with planned shipments.

    Units that are cancelled are not expected any more."""
    if not totals.expected:
        return OrderStatus.CANCELLED
    if totals.delivered == totals.expected:
        return OrderStatus.DELIVERED
    return OrderStatus.SHIPPED if totals.shipped == totals.expected else OrderStatus.FULFILLING


@dataclass
class OrderProgress:
    """An order under its lock, and how far its units bring it: to shipped, to delivered.

    A status never goes back: an order stays shipped while a lost shipment is replaced."""

    status: OrderStatus
    totals: FulfilmentTotals
    reached: set[OrderStatus] = field(default_factory=set)

    def add_step(self, to: ShipmentStatus, units: int) -> None:
        """Count the units of a shipment that takes a step.

        Step by step: a shipment that is reported as picked up and lost at once was shipped all the same."""
        totals = self.totals
        if to is ShipmentStatus.PICKED_UP:
            self.totals = totals._replace(shipped=totals.shipped + units)
            self.advance()
        elif to is ShipmentStatus.DELIVERED:
            self.totals = totals._replace(delivered=totals.delivered + units)
            self.advance()
        elif to in (ShipmentStatus.LOST, ShipmentStatus.RETURNED_TO_SENDER):
            self.totals = totals._replace(planned=totals.planned - units, shipped=totals.shipped - units)

    def advance(self) -> None:
        """Advance the status as far as the units allow."""
        derived = derive_status(self.totals)
        if self.status is OrderStatus.FULFILLING and derived in (OrderStatus.SHIPPED, OrderStatus.DELIVERED):
            self._reach(OrderStatus.SHIPPED)
        if self.status is OrderStatus.SHIPPED and derived is OrderStatus.DELIVERED:
            self._reach(OrderStatus.DELIVERED)

    def _reach(self, status: OrderStatus) -> None:
        self.status = status
        self.reached.add(status)
