"""kuaidi100 (快递100), which tracks shipments of many carriers that staff book with directly."""

from __future__ import annotations

from collections.abc import Mapping

from commerce.kernel.clock import Clock
from commerce.kernel.external import HttpTransport
from commerce.shipping.carrier_port import AdapterObjects, CarrierAdapter
from commerce.shipping.carriers.kuaidi100.adapter import Kuaidi100, Kuaidi100Carrier
from commerce.shipping.carriers.kuaidi100.settings import Kuaidi100Account


def _create(
    account: Kuaidi100Account, transport: HttpTransport, _clock: Clock, *, kuaidi100_carriers: Mapping[str, str]
) -> AdapterObjects:
    kuaidi100 = Kuaidi100(account, transport, kuaidi100_carriers)
    carriers = [Kuaidi100Carrier(name, com, kuaidi100) for name, com in kuaidi100_carriers.items()]
    return AdapterObjects(carriers, kuaidi100)


ADAPTER: CarrierAdapter = CarrierAdapter(
    name=Kuaidi100.system,
    settings_field="kuaidi100",
    load_account=Kuaidi100Account.load,
    create=_create,
    extra_settings=("kuaidi100_carriers",),
    sends_webhooks=True,
)

__all__ = ["ADAPTER", "Kuaidi100", "Kuaidi100Account", "Kuaidi100Carrier"]
