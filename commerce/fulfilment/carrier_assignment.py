"""Who is to bring a parcel. The rate table decides; what is refused or down is left out, with the reason kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from commerce.fulfilment import store
from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.service import Rates
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.model import Shipment, Task
from commerce.shipping.policy import ShippingPolicy, dispatch_day


class CarrierAssignment:
    """Chooses by the rate table in force, among the carriers that the shop works with."""

    def __init__(self, rates: Rates, carriers: CarrierRegistry, rules: ShippingPolicy) -> None:
        self._rates = rates
        self._carriers = carriers
        self._rules = rules

    async def assign(
        self,
        connection: Connection,
        shipment: Shipment,
        now: datetime,
        *,
        excluded: Mapping[str, str] | None = None,
    ) -> str | None:
        """Give the parcel, which nobody is booked for, to a carrier; its name, or None where it is parked because
        none takes it. `excluded` names carriers that are not to be asked now, and why."""
        if fault := missing_address_fields(shipment.address):
            await store.park_without_carrier(connection, shipment.shipment_id, None, now, fault)
            return None
        book = await self._rates.find_current(connection)
        if book is None:
            why = "there is no rate table: import one"
            await store.park_without_carrier(connection, shipment.shipment_id, None, now, why)
            return None
        left_out = {name: "the settings do not name it" for name in book.carriers if name not in self._carriers.by_name}
        left_out |= dict.fromkeys(shipment.refused_by, "it refused this parcel") | dict(excluded or {})
        day, cod = dispatch_day(self._rules, now), shipment.cod_minor > 0
        choice = choose_carrier(book, shipment.address, shipment.weight_g, cod, day, shipment.promised_on, left_out)
        if choice.carrier is None:
            why = "; ".join(f"{one.carrier}: {one.reason}" for one in choice.candidates)
            await store.park_without_carrier(
                connection, shipment.shipment_id, choice, now, f"no carrier takes it: {why}"
            )
            return None
        task: Task | None = "book" if self._carriers.by_name[choice.carrier].accepts_bookings else None
        await store.assign_carrier(connection, shipment.shipment_id, choice, task, now)
        return choice.carrier


def missing_address_fields(address: Address) -> str | None:
    """What an address lacks that every carrier needs; what is to be done is to change it."""
    lacks = [name for name in ("province", "city", "line", "phone", "name") if not getattr(address, name).strip()]
    if address.country != "CN":
        lacks = [name for name in lacks if name != "province"]
    return f"the address lacks {', '.join(lacks)}: change it" if lacks else None
