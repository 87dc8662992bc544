"""The shop's own vehicles."""

from commerce.shipping.carrier_port import AdapterObjects, CarrierAdapter
from commerce.shipping.carriers.own_fleet.adapter import OwnFleet

ADAPTER: CarrierAdapter = CarrierAdapter(
    name=OwnFleet.system,
    settings_field="own_fleet",
    create=lambda _account, _transport, _clock: AdapterObjects([OwnFleet()]),
)

__all__ = ["ADAPTER", "OwnFleet"]
