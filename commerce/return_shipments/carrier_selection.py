"""Chooses the carrier that collects a return shipment: the cheapest by the rate table that does so.

A rate counts in both directions: the way from a customer costs what the way there costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from commerce.fulfilment.carrier_assignment import missing_address_fields
from commerce.fulfilment.packing import PackItem, pack
from commerce.fulfilment.planning import package_size
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.service import Rates
from commerce.return_shipments.errors import CannotReturn
from commerce.return_shipments.model import ReturnContent, ReturnShipment
from commerce.return_shipments.store import BookingChoice
from commerce.shipping.carrier_port import Carrier, CarrierRegistry
from commerce.shipping.errors import CannotShip
from commerce.shipping.policy import ShippingPolicy, dispatch_day
from commerce.shipping.records import PackageSize
from commerce.warehouses import store as warehouses
from commerce.warehouses.model import UnitSize

_MAX_DAYS = 365
"""A return is not urgent: the cheapest carrier is chosen, however long it takes."""
_UNKNOWN_SIZE = PackageSize(1_000, 300, 200, 200)
"""size of a shipment that customers send themselves, which nobody is asked to collect"""


class CarrierSelection(NamedTuple):
    """The choice of a carrier, or the reason why there is none."""

    choice: BookingChoice | None
    reason: str


def _pack_item(content: ReturnContent, product: UnitSize) -> PackItem:
    return PackItem(
        line_no=content.case_line_no,
        sku=content.sku,
        quantity=content.quantity,
        weight_g=product.weight_g,
        length_mm=product.length_mm,
        width_mm=product.width_mm,
        height_mm=product.height_mm,
    )


class ReturnCarriers:
    """Chooses among the configured carriers that collect returns."""

    def __init__(self, rates: Rates, carriers: CarrierRegistry, policy: ShippingPolicy, ids: IdGenerator) -> None:
        self.by_name = carriers.by_name
        self._rates = rates
        self._policy = policy
        self._ids = ids

    async def select(self, connection: Connection, shipment: ReturnShipment, now: datetime) -> CarrierSelection:
        """Choose the carrier of a return shipment that has none, with a new booking id."""
        if missing := missing_address_fields(shipment.from_address):
            return CarrierSelection(None, missing)
        index = await self._rates.find_current(connection)
        if index is None:
            return CarrierSelection(None, "there is no rate table; import one")
        today = dispatch_day(self._policy, now)
        choice = choose_carrier(
            index,
            shipment.from_address,
            shipment.weight_g,
            cod=False,
            dispatch_on=today,
            promised_on=today + timedelta(days=_MAX_DAYS),
            excluded={
                name: reason
                for name in index.carriers
                if (reason := self._explain_exclusion(name, shipment)) is not None
            },
        )
        if choice.carrier is None:
            reasons = "; ".join(f"{candidate.carrier}: {candidate.reason}" for candidate in choice.candidates)
            return CarrierSelection(
                None, f"no carrier collects it ({reasons}): ask the customer to send it and to enter the number"
            )
        return CarrierSelection(BookingChoice(choice.carrier, self._ids.new(), choice.price, choice.expected_on), "")

    def _explain_exclusion(self, name: str, shipment: ReturnShipment) -> str | None:
        carrier = self.by_name.get(name)
        if carrier is None:
            return "the settings do not name it"
        if name in shipment.refused_by:
            return "it refused this shipment"
        return None if carrier.collects_returns else "it collects nothing from customers"

    def carrier_of(self, shipment: ReturnShipment) -> Carrier | None:
        """Return the carrier of a shipment; None if it has none, or one that the settings do not name."""
        return self.by_name.get(shipment.carrier) if shipment.carrier else None

    async def measure(self, connection: Connection, contents: Sequence[ReturnContent]) -> PackageSize:
        """Return weight and size of the box for the contents.

        Raises `CannotReturn` if they do not fit one box, or a weight is unknown."""
        sizes = await warehouses.unit_sizes_of(connection, {content.sku for content in contents})
        if unknown := sorted({content.sku for content in contents} - sizes.keys()):
            raise CannotReturn(
                f"weight and size of {', '.join(unknown[:10])} are unknown; import the product logistics"
            )
        items = [_pack_item(content, sizes[content.sku]) for content in contents]
        try:
            [box] = pack(items, self._policy.boxes, self._policy.box_fill_ratio, 1)
        except CannotShip:
            raise CannotReturn(
                "the units do not fit one box: request a return shipment for a part of them, then one for the rest"
            ) from None
        return package_size(box)

    async def estimate(self, connection: Connection, contents: Sequence[ReturnContent]) -> PackageSize:
        """Return weight and size of the contents as by `measure`, and a usual shipment's if that is unknown."""
        try:
            return await self.measure(connection, contents)
        except CannotReturn:
            return _UNKNOWN_SIZE
