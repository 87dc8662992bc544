"""The registry of carriers. A new carrier is a folder here, its settings, and one line in `ADAPTERS`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady
from commerce.kernel.http_client import open_transport
from commerce.shipping.carrier_port import Carrier, CarrierAdapter, CarrierRegistry, CarrierWebhookReader
from commerce.shipping.carriers import kuaidi100, own_fleet, sf_express

ADAPTERS: tuple[CarrierAdapter, ...] = (
    own_fleet.ADAPTER,
    sf_express.ADAPTER,
    kuaidi100.ADAPTER,
)
WEBHOOK_SYSTEMS = tuple(adapter.name for adapter in ADAPTERS if adapter.sends_webhooks)


@asynccontextmanager
async def open_carriers(
    settings: object, clock: Clock, *, timeout_s: float, connections: int
) -> AsyncIterator[CarrierRegistry]:
    """Create the carriers that the shipping settings name, each system with its own connections.

    Raises `NotReady` if the settings cannot be used."""
    carriers: list[Carrier] = []
    readers: dict[str, CarrierWebhookReader] = {}
    async with AsyncExitStack() as stack:
        try:
            for adapter in ADAPTERS:
                section: Any = getattr(settings, adapter.settings_field)
                extra = {field: getattr(settings, field) for field in adapter.extra_settings}
                if not section:
                    if fields := [field for field, value in extra.items() if value]:
                        raise ValueError(f"{', '.join(fields)}: set {adapter.settings_field} too")
                    continue
                account = adapter.load_account(**section.as_strings()) if adapter.load_account else None
                transport = await stack.enter_async_context(
                    open_transport(timeout_s=timeout_s, connections=connections)
                )
                created = adapter.create(account, transport, clock, **extra)
                carriers += created.carriers
                if created.webhook_reader is not None:
                    readers[adapter.name] = created.webhook_reader
            by_name = {carrier.name: carrier for carrier in carriers}
            if len(by_name) != len(carriers):
                names = [carrier.name for carrier in carriers]
                repeated = sorted({name for name in names if names.count(name) > 1})
                raise ValueError(f"two carriers have the name {', '.join(repeated)}: rename one")
        except ValueError as error:
            raise NotReady(f"cannot use the settings of shipping: {error}") from None
        yield CarrierRegistry(by_name, readers)
