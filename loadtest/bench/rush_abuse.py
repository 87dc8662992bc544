"""Ordinary customers beside clients that take more than their share."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from loadtest.bench.crowd import Crowd, list_addresses, open_crowd
from loadtest.bench.idle_connections import open_idle_connections
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.rush_figures import AbuseFigures
from loadtest.bench.shop_environment import BenchedShop, open_shop

REAL_LIMITS = {"FLOODGATE_HTTP__PROXY_NETWORKS": "[]"}
"""the default limits, also of addresses of this machine, which else count as proxies"""
_CUSTOMERS, _PAUSE_MS, _ADDRESSES = 1_000, 400.0, 20
_MANY_CONNECTIONS = 2_000
_CONNECTIONS_OF_ACCOUNTS, _ACCOUNTS_PER_CONNECTION = 500, 20
_NICENESS = 19  # abusers' own work must not take the processor from the shop: they are elsewhere
_RAMP_S = 1.5


async def measure_abuse(seconds: float, repeats: int) -> dict[str, list[AbuseFigures]]:
    """Measure ordinary customers alone and beside each kind of abuse in turn, several times.

    They have a shop of their own.
    """
    figures: dict[str, list[AbuseFigures]] = {}
    async with open_shop(REAL_LIMITS) as shop, _open_ordinary(shop) as ordinary:
        await ordinary.wait_until_connected()
        await asyncio.sleep(_RAMP_S)
        for _ in range(repeats):
            for name, abuse in _list_abuses(shop).items():
                alone_per_s = await _measure(ordinary, seconds)
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(abuse)
                    await asyncio.sleep(_RAMP_S)
                    beside_per_s = await _measure(ordinary, seconds)
                figures.setdefault(name, []).append(AbuseFigures(alone_per_s, beside_per_s))
                await wait_until_drained(shop.environment)
                await asyncio.sleep(_RAMP_S)
    return figures


def _open_ordinary(shop: BenchedShop) -> AbstractAsyncContextManager[Crowd]:
    return open_crowd(
        shop.environment,
        shop.url,
        _CUSTOMERS,
        is_patient=True,
        pause_ms=_PAUSE_MS,
        sources=list_addresses(101, _ADDRESSES),
    )


def _list_abuses(shop: BenchedShop) -> dict[str, AbstractAsyncContextManager[object]]:
    environment, url = shop.environment, shop.url
    token = environment.home / "token-of-one"
    token.write_text(environment.tokens.read_text().splitlines()[-1] + "\n")
    return {
        "many_connections": open_crowd(
            environment, url, _MANY_CONNECTIONS, users=token, sources=["127.0.1.250"], niceness=_NICENESS
        ),
        "many_accounts": open_crowd(
            environment,
            url,
            _CONNECTIONS_OF_ACCOUNTS,
            users_per_connection=_ACCOUNTS_PER_CONNECTION,
            sources=["127.0.1.251"],
            niceness=_NICENESS,
        ),
        "slow_senders": open_idle_connections(url, sending=True, sources=list_addresses(200, 10)),
    }


async def _measure(ordinary: Crowd, seconds: float) -> float:
    """Return the accepted orders of the ordinary customers per second."""
    await ordinary.take_sample()
    await asyncio.sleep(seconds)
    sample = await ordinary.take_sample()
    return sample.accepted / sample.seconds
