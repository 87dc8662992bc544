"""The registry of payment providers.

A new provider is a folder here, its section in the settings, and one line in `ADAPTERS`. Its name is also a value of
`Method` in `commerce/orders/model.py`, which the type checker reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady
from commerce.kernel.external import CredentialSource
from commerce.kernel.http_client import open_transport
from commerce.payments.provider_port import Provider, ProviderAdapter
from commerce.payments.providers import alipay, wechatpay

ADAPTERS: tuple[ProviderAdapter, ...] = (
    alipay.ADAPTER,
    wechatpay.ADAPTER,
)
PROVIDER_NAMES = tuple(adapter.name for adapter in ADAPTERS)


def configured_credentials(settings: object) -> dict[str, CredentialSource]:
    """Return the credentials of the providers that the payment settings name, by provider."""
    credentials = {adapter.name: getattr(settings, adapter.settings_field) for adapter in ADAPTERS}
    return {name: section for name, section in credentials.items() if section is not None}


@asynccontextmanager
async def open_providers(
    settings: object, clock: Clock, *, timeout_s: float, connections: int
) -> AsyncIterator[dict[str, Provider]]:
    """Create the providers that the payment settings name, by method, each with its own connections.

    Raises `NotReady` if the settings cannot be used."""
    providers: dict[str, Provider] = {}
    credentials = configured_credentials(settings)
    async with AsyncExitStack() as stack:
        try:
            for adapter in ADAPTERS:
                if adapter.name in credentials:
                    account = adapter.load_account(**credentials[adapter.name].as_strings())
                    transport = await stack.enter_async_context(
                        open_transport(timeout_s=timeout_s, connections=connections)
                    )
                    providers[adapter.name] = adapter.create(account, transport, clock)
        except ValueError as error:
            raise NotReady(f"cannot use the settings of payments: {error}") from None
        yield providers
