"""The providers outside that the shop has agreed with, made from what the settings say of each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady
from commerce.kernel.http_client import AiohttpTransport, open_transport
from commerce.payments.provider_port import Provider
from commerce.payments.providers import alipay, wechatpay


class CredentialSource(Protocol):
    """A provider's part of the settings: gives its fields as texts, secrets too."""

    def as_strings(self) -> dict[str, str]: ...


class ProviderSettings(Protocol):
    """The settings of all providers; None for one that is not offered."""

    @property
    def alipay(self) -> CredentialSource | None: ...

    @property
    def wechatpay(self) -> CredentialSource | None: ...


@asynccontextmanager
async def open_providers(
    agreed: ProviderSettings, clock: Clock, *, timeout_s: float, connections: int
) -> AsyncIterator[dict[str, Provider]]:
    """Providers by method, each with connections of its own. Raises `NotReady` where what was agreed cannot be used."""
    providers: dict[str, Provider] = {}
    async with AsyncExitStack() as stack:

        async def outside() -> AiohttpTransport:
            return await stack.enter_async_context(open_transport(timeout_s=timeout_s, connections=connections))

        try:
            if agreed.alipay is not None:
                account = alipay.AlipayAccount.load(**agreed.alipay.as_strings())
                providers["alipay"] = alipay.Alipay(account, await outside(), clock)
            if agreed.wechatpay is not None:
                merchant = wechatpay.WeChatPayAccount.load(**agreed.wechatpay.as_strings())
                providers["wechatpay"] = wechatpay.WeChatPay(merchant, await outside(), clock)
        except ValueError as error:
            raise NotReady(f"the settings of payments cannot be used: {error}") from None
        yield providers
