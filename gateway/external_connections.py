"""Connections of the gateway for reserve calls, payment providers and carriers."""

from __future__ import annotations

from contextlib import AsyncExitStack

from commerce.kernel.clock import Clock
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from commerce.payments.provider_port import Provider
from commerce.payments.providers import open_providers
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.carriers import open_carriers
from config.settings import Settings
from gateway import metrics


async def open_connections(
    stack: AsyncExitStack, settings: Settings, clock: Clock
) -> tuple[RedisMultiplexer, dict[str, Provider], CarrierRegistry]:
    """Open the connection for reserve calls, and the external systems."""
    link = await _open_reserve_link(stack, settings)
    return link, *await _open_external_systems(stack, settings, clock)


async def _open_reserve_link(stack: AsyncExitStack, settings: Settings) -> RedisMultiplexer:
    """Open the connection for reserve calls, which checks Redis's durability after every reconnect."""
    link = RedisMultiplexer(
        settings.redis(),
        timeout_s=settings.limits.redis_call_timeout_ms / 1000,
        name="intake",
        required_durability=(settings.durability, settings.replicas),
    )
    stack.push_async_callback(link.close)
    await link.execute_command("PING")
    return link


async def _open_external_systems(
    stack: AsyncExitStack, settings: Settings, clock: Clock
) -> tuple[dict[str, Provider], CarrierRegistry]:
    """Open the payment providers and the carriers that the settings name, and create their series."""
    timeout_s = settings.jobs.call_timeout_s
    providers = await stack.enter_async_context(
        open_providers(settings.payments, clock, timeout_s=timeout_s, connections=4)
    )
    carriers = await stack.enter_async_context(
        open_carriers(settings.shipping, clock, timeout_s=timeout_s, connections=1)
    )
    metrics.create_series(providers, carriers.webhook_readers)
    return providers, carriers
