"""Assigns carriers to shipments by the rate table and keeps the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from commerce.fulfilment import store
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.address import Address, is_phone
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.postgres import Connection
from commerce.kernel.types import is_filled
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.model import CarrierChoice
from commerce.rates.service import Rates
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.model import Shipment
from commerce.shipping.policy import ShippingPolicy, dispatch_day
from commerce.shipping.shipment_tasks import SHIPMENTS, put_task


class CarrierAssignment:
    """Chooses among the configured carriers by the current rate table."""

    def __init__(self, rates: Rates, carriers: CarrierRegistry, policy: ShippingPolicy) -> None:
        self._rates = rates
        self._carriers = carriers
        self._policy = policy

    async def assign(
        self,
        connection: Connection,
        shipment: Shipment,
        now: datetime,
        *,
        excluded: Mapping[str, str] | None = None,
        due_at: datetime | None = None,
    ) -> str | None:
        """Assign a carrier to a shipment without a booking and return its name.

        It is booked at `due_at`, or now. `excluded` maps carriers that must not be chosen now to the reason. Returns
        None after parking the shipment if no carrier takes it. Call inside a transaction that holds the order lock.
        """
        if missing := missing_address_fields(shipment.address):
            await self._park(connection, shipment, None, now, missing)
            return None
        index = await self._rates.find_current(connection)
        if index is None:
            await self._park(connection, shipment, None, now, "there is no rate table; import one")
            return None
        choice = choose_carrier(
            index,
            shipment.address,
            shipment.weight_g,
            cod=shipment.cod_minor > 0,
            dispatch_on=dispatch_day(self._policy, now),
            promised_on=shipment.promised_on,
            excluded={**self._not_configured(index.carriers), **_refused(shipment), **(excluded or {})},
        )
        if choice.carrier is None:
            reasons = "; ".join(f"{candidate.carrier}: {candidate.reason}" for candidate in choice.candidates)
            await self._park(connection, shipment, choice, now, f"no carrier takes it: {reasons}")
            return None
        await store.assign_carrier(connection, shipment.shipment_id, choice)
        carrier = self._carriers.by_name[choice.carrier]
        if carrier.accepts_bookings:
            await put_task(connection, shipment.shipment_id, "shipment.book", carrier, due_at or now, now)
        else:
            await jobs.remove(connection, SHIPMENTS, [shipment.shipment_id])
        return choice.carrier

    async def _park(
        self, connection: Connection, shipment: Shipment, choice: CarrierChoice | None, now: datetime, reason: str
    ) -> None:
        await store.assign_carrier(connection, shipment.shipment_id, choice)
        job = NewJob(shipment.shipment_id, "shipment.assign_again", INTERNAL_SYSTEM, now)
        await jobs.put_parked(connection, SHIPMENTS, job, reason, now)

    def _not_configured(self, carriers: list[str]) -> dict[str, str]:
        return {name: "the settings do not name it" for name in carriers if name not in self._carriers.by_name}


def _refused(shipment: Shipment) -> dict[str, str]:
    return dict.fromkeys(shipment.refused_by, "it refused this shipment")


def missing_address_fields(address: Address) -> str | None:
    """Name the fields that every carrier needs and the address lacks; None if it is complete."""
    required = ("province", "city", "line", "name") if address.country == "CN" else ("city", "line", "name")
    missing = [name for name in required if not is_filled(getattr(address, name))]
    missing += [] if is_phone(address.phone) else ["phone"]
    missing += [] if address.country in COUNTRIES else ["country"]
    return f"the address lacks {', '.join(missing)}; change it" if missing else None
