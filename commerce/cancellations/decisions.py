"""Decides what becomes of the units of an order that are cancelled, without any I/O.

Units that are in no shipment are cancelled at once. A shipment that holds others is stopped if it has not left; what it
holds besides is planned again. Units that cannot be stopped are kept: once delivered, they are a
return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from commerce.cancellations.model import Cause, LineKey
from commerce.shipping.model import UNDELIVERED_STATUSES, Shipment, ShipmentStatus

ReturnedUnits = Literal["restock", "write_off"]
"""the fate of units that a carrier brings back: they are sold again, or written off"""


@dataclass
class LineUnits:
    """Units of an order line for one address."""

    line_no: int
    address_no: int
    sku: str
    ordered: int
    planned: int = 0
    shipped: int = 0
    delivered: int = 0
    cancelled: int = 0
    cancelling: int = 0

    @property
    def key(self) -> LineKey:
        return self.line_no, self.address_no

    @property
    def unplanned(self) -> int:
        return self.ordered - self.cancelled - self.planned


@dataclass
class ShipmentUnits:
    """A shipment with its units by line.

    `undecided` has those of one that ended without a delivery, as long as it is open what becomes of them."""

    shipment: Shipment
    units: dict[LineKey, int]
    undecided: dict[LineKey, int]

    @property
    def can_be_stopped(self) -> bool:
        """Return whether it has not left, as far as is known, and its carrier has not said no."""
        has_not_left = self.shipment.status in (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED)
        return has_not_left and self.shipment.cancel_refused_at is None

    @property
    def is_undecided(self) -> bool:
        return self.shipment.status in UNDELIVERED_STATUSES and any(self.undecided.values())


@dataclass
class OpenLine:
    """Units of a line in a cancellation that is not done."""

    cancellation_id: UUID
    cause: Cause
    key: LineKey
    quantity: int
    cancelled: int = 0
    kept: int = 0
    written_off: int = 0

    @property
    def left(self) -> int:
        return self.quantity - self.cancelled - self.kept


@dataclass
class OrderContents:
    """The units of an order under its lock, and what is decided about them."""

    lines: dict[LineKey, LineUnits]
    shipments: list[ShipmentUnits]
    open_lines: list[OpenLine] = field(default_factory=list)
    decided: Counter[tuple[UUID, int]] = field(default_factory=Counter)
    """units by shipment and line number whose fate is known from now on"""
    brought_back: Counter[tuple[str, str]] = field(default_factory=Counter)
    """units by SKU and warehouse that a carrier returned, and that are sold or sent again from now on"""
    to_stop: dict[UUID, Shipment] = field(default_factory=dict)
    has_units_to_plan: bool = False

    def count_cancellable(self) -> dict[LineKey, int]:
        """Count the units of each line that may be cancelled now and are not being cancelled."""
        counts = {
            key: line.ordered - line.cancelled - line.cancelling - line.shipped for key, line in self.lines.items()
        }
        for each in self.shipments:
            # Picked up, though no tracking event says so yet.
            if each.shipment.status in (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED) and not each.can_be_stopped:
                for key, units in each.units.items():
                    counts[key] -= units
        return {key: count for key, count in counts.items() if count > 0}

    def list_fresh(self, key: LineKey) -> int:
        """Count the units of a line that were in no shipment yet, or are to be planned again."""
        return self.lines[key].unplanned - sum(each.undecided.get(key, 0) for each in self._ended())

    def decide(self, returned_shipments: ReturnedUnits) -> None:
        """Cancel, stop or keep the units of open cancellations, and plan the rest of stopped shipments again.

        Units that wait for a shipment to be stopped stay as they are. A repeat changes nothing."""
        claimed = Counter[tuple[UUID, LineKey]]()
        for open_line in self.open_lines:
            self._take_free_units(open_line, returned_shipments)
            unstoppable = open_line.left - self._stop_shipments(open_line, claimed)
            open_line.kept += unstoppable
            self.lines[open_line.key].cancelling -= unstoppable
        for each in self._ended():
            if each.is_undecided and each.shipment.plan_again:
                for key, units in each.undecided.items():
                    self._decide(each, key, units, is_kept=True)
        self.has_units_to_plan = any(self.list_fresh(key) > 0 for key in self.lines)

    def _take_free_units(self, open_line: OpenLine, returned_shipments: ReturnedUnits) -> None:
        """Cancel units of a line that are in no shipment."""
        line = self.lines[open_line.key]
        sources: list[ShipmentUnits | None] = [None, *self._ended()]
        for source in sorted(sources, key=lambda source: _source_rank(source, open_line.cause)):
            free = self.list_fresh(line.key) if source is None else source.undecided.get(line.key, 0)
            units = min(open_line.left, free)
            if units <= 0:
                continue
            open_line.cancelled += units
            line.cancelled += units
            line.cancelling -= units
            if source is not None:
                status = source.shipment.status
                is_gone = status is ShipmentStatus.LOST or (
                    status is ShipmentStatus.RETURNED_TO_SENDER and returned_shipments == "write_off"
                )
                self._decide(source, line.key, units, is_kept=not is_gone)
                open_line.written_off += units * is_gone

    def _stop_shipments(self, open_line: OpenLine, claimed: Counter[tuple[UUID, LineKey]]) -> int:
        """Stop shipments until they hold what is left of a cancelled line, or no more can be stopped.

        Returns the number of units that they hold, at most those that are left."""
        covered = 0
        for each in sorted(self.shipments, key=self._stop_rank):
            id_ = each.shipment.shipment_id
            units = min(open_line.left - covered, each.units.get(open_line.key, 0) - claimed[id_, open_line.key])
            if units > 0 and each.can_be_stopped:
                claimed[id_, open_line.key] += units
                covered += units
                if each.shipment.after_cancel != "cancelled":
                    self.to_stop[id_] = each.shipment
        return covered

    def _stop_rank(self, each: ShipmentUnits) -> tuple[bool, bool, int]:
        """Rank shipments: those that are being stopped, then those without a booking, then the latest."""
        shipment = each.shipment
        is_stopped = shipment.after_cancel == "cancelled" or shipment.shipment_id in self.to_stop
        return not is_stopped, shipment.booking_id is not None, -shipment.parcel_no

    def _decide(self, source: ShipmentUnits, key: LineKey, units: int, *, is_kept: bool) -> None:
        source.undecided[key] -= units
        if units:
            self.decided[source.shipment.shipment_id, key[0]] += units
            if is_kept and source.shipment.status is ShipmentStatus.RETURNED_TO_SENDER:
                self.brought_back[self.lines[key].sku, source.shipment.warehouse_id] += units

    def _ended(self) -> Iterator[ShipmentUnits]:
        return (each for each in self.shipments if each.shipment.status in UNDELIVERED_STATUSES)


_SOURCE_RANKS = {ShipmentStatus.CANCELLED: 2, ShipmentStatus.RETURNED_TO_SENDER: 3, ShipmentStatus.LOST: 4}
_STATUS_OF_CAUSE: dict[Cause, ShipmentStatus] = {
    "lost": ShipmentStatus.LOST,
    "undeliverable": ShipmentStatus.RETURNED_TO_SENDER,
    "delivery_refused": ShipmentStatus.RETURNED_TO_SENDER,
}


def _source_rank(source: ShipmentUnits | None, cause: Cause) -> int:
    """Rank units that are in no shipment: those that the cause means, then those that never left."""
    if source is None:
        return 1
    return 0 if source.shipment.status is _STATUS_OF_CAUSE.get(cause) else _SOURCE_RANKS[source.shipment.status]
