"""Assigns carriers to shipments by the rate table and keeps the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from commerce.fulfilment import store
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.address import Address, is_phone
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.postgres import Connection
from commerce.kernel.types import is_filled
from commerce.rates.carrier_choice import choose_carrier
from commerce.rates.model import CarrierChoice, RateTableIndex
from commerce.rates.service import Rates
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.model import Shipment
from commerce.shipping.policy import ShippingPolicy, dispatch_day
from commerce.shipping.shipment_tasks import SHIPMENTS, system_of


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
        names = await self.assign_all(connection, [shipment], now, excluded=excluded, due_at=due_at)
        return names[shipment.shipment_id]

    async def assign_all(
        self,
        connection: Connection,
        shipments: Sequence[Shipment],
        now: datetime,
        *,
        excluded: Mapping[str, str] | None = None,
        due_at: datetime | None = None,
    ) -> dict[UUID, str | None]:
        """Assign carriers to shipments as `assign` does. Returns the names by shipment."""
        index = await self._rates.find_current(connection)
        choices, parked = dict[UUID, CarrierChoice | None](), dict[UUID, str]()
        bookings, without_job = list[NewJob](), list[UUID]()
        for shipment in shipments:
            id_, choice, reason = shipment.shipment_id, *self._choose(index, shipment, now, excluded or {})
            choices[id_] = choice
            if choice is None or choice.carrier is None:
                parked[id_] = reason
            elif (carrier := self._carriers.by_name[choice.carrier]).accepts_bookings:
                bookings.append(NewJob(id_, "shipment.book", system_of(carrier), due_at or now))
            else:
                without_job.append(id_)
        await store.assign_carriers(connection, choices)
        for id_, reason in sorted(parked.items()):
            job = NewJob(id_, "shipment.assign_again", INTERNAL_SYSTEM, now)
            await jobs.put_parked(connection, SHIPMENTS, job, reason, now)
        await jobs.put(connection, SHIPMENTS, bookings, now)
        if without_job:
            await jobs.remove(connection, SHIPMENTS, without_job)
        return {id_: choice.carrier if choice else None for id_, choice in choices.items()}

    def _choose(
        self, index: RateTableIndex | None, shipment: Shipment, now: datetime, excluded: Mapping[str, str]
    ) -> tuple[CarrierChoice | None, str]:
        """Choose the carrier of a shipment. Returns the reason, too, if no carrier takes it."""
        if missing := missing_address_fields(shipment.address):
            return None, missing
        if index is None:
            return None, "there is no rate table; import one"
        choice = choose_carrier(
            index,
            shipment.address,
            shipment.weight_g,
            cod=shipment.cod_minor > 0,
            dispatch_on=dispatch_day(self._policy, now),
            promised_on=shipment.promised_on,
            excluded={**self._not_configured(index.carriers), **_refused(shipment), **excluded},
        )
        reasons = "; ".join(f"{candidate.carrier}: {candidate.reason}" for candidate in choice.candidates)
        return choice, f"no carrier takes it: {reasons}"

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
