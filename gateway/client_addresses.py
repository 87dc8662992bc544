"""Addresses of clients, for limits per address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

_MAX_CACHED = 10_000
_IPV6_PREFIX_BITS = 64


class ClientAddresses:
    """Finds the address under which a connection is counted.

    Connections from `proxy_networks` are not counted: behind a proxy all clients have its address.
    """

    def __init__(self, proxy_networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self._proxy_networks = proxy_networks
        self._group_cached = lru_cache(_MAX_CACHED)(self._group)

    def find(self, transport: asyncio.BaseTransport | None) -> str | None:
        """Return the address of the connection's client, None if it is not to be counted."""
        peer = transport.get_extra_info("peername") if transport is not None else None
        # A Unix socket has no address. An IPv6 one may end with its interface.
        return self._group_cached(peer[0].partition("%")[0]) if isinstance(peer, tuple) else None

    def _group(self, text: str) -> str | None:
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._proxy_networks):
            return None
        if isinstance(address, IPv6Address):  # a client chooses the last 64 bits itself
            return str(IPv6Network((address, _IPV6_PREFIX_BITS), strict=False))
        return str(address)
