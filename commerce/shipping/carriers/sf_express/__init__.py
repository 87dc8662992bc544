"""SF Express (顺丰) by its open platform, for shops with a monthly account in mainland China."""

from __future__ import annotations

from commerce.kernel.clock import Clock
from commerce.kernel.external import HttpTransport
from commerce.shipping.carrier_port import AdapterObjects, CarrierAdapter
from commerce.shipping.carriers.sf_express.adapter import SfExpress
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount


def _create(account: SfExpressAccount, transport: HttpTransport, clock: Clock) -> AdapterObjects:
    sf_express = SfExpress(account, transport, clock)
    return AdapterObjects([sf_express], sf_express)


ADAPTER: CarrierAdapter = CarrierAdapter(
    name=SfExpress.system,
    settings_field="sf_express",
    load_account=SfExpressAccount.load,
    create=_create,
    sends_webhooks=True,
)

__all__ = ["ADAPTER", "SfExpress", "SfExpressAccount"]
