"""The carriers that the shop has agreed with, made from what the settings say of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady
from commerce.kernel.http_client import AiohttpTransport, open_transport
from commerce.shipping.carrier_port import Carrier, CarrierRegistry, CarrierWebhookReader
from commerce.shipping.carriers import kuaidi100, own_fleet, sf_express


class CredentialSource(Protocol):
    """A carrier's part of the settings: gives its fields as texts, secrets too."""

    def texts(self) -> dict[str, str]: ...


class CarrierSettings(Protocol):
    """The settings of all carriers; None for one that nothing is agreed with."""

    @property
    def own_fleet(self) -> bool: ...

    @property
    def sf_express(self) -> CredentialSource | None: ...

    @property
    def kuaidi100(self) -> CredentialSource | None: ...

    @property
    def kuaidi100_carriers(self) -> Mapping[str, str]: ...


@asynccontextmanager
async def open_carriers(
    agreed: CarrierSettings, clock: Clock, *, timeout_s: float, connections: int
) -> AsyncIterator[CarrierRegistry]:
    """Each system has connections of its own. Raises `NotReady` where what was agreed cannot be used."""
    carriers: list[Carrier] = []
    readers: dict[str, CarrierWebhookReader] = {}
    async with AsyncExitStack() as stack:

        async def outside() -> AiohttpTransport:
            return await stack.enter_async_context(open_transport(timeout_s=timeout_s, connections=connections))

        try:
            if agreed.own_fleet:
                carriers.append(own_fleet.OwnFleet())
            if agreed.sf_express is not None:
                partner = sf_express.SfExpressAccount.load(**agreed.sf_express.texts())
                sf = sf_express.SfExpress(partner, await outside(), clock)
                carriers.append(sf)
                readers[sf.system] = sf
            if agreed.kuaidi100 is not None:
                account = kuaidi100.Kuaidi100Account.load(**agreed.kuaidi100.texts())
                system = kuaidi100.Kuaidi100(account, await outside(), agreed.kuaidi100_carriers)
                carriers += [
                    kuaidi100.Kuaidi100Carrier(name, com, system) for name, com in agreed.kuaidi100_carriers.items()
                ]
                readers[system.system] = system
            elif agreed.kuaidi100_carriers:
                raise ValueError("kuaidi100_carriers: set kuaidi100 too, by which they are followed")
            by_name = {carrier.name: carrier for carrier in carriers}
            if len(by_name) != len(carriers):
                raise ValueError("kuaidi100_carriers: sf_express and own_fleet are names of other carriers")
        except ValueError as error:
            raise NotReady(f"the settings of shipping cannot be used: {error}") from None
        yield CarrierRegistry(by_name, readers)
