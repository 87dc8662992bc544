"""Addresses of clients, for limits per address."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network

from aiohttp import web

from config.settings import HttpSettings
from gateway.forwarded_header import IpAddress, find_forwarded, find_x_forwarded_for, parse_ip
from gateway.rate_limits import Bucket, TokenBuckets
from gateway.request_head import HeaderLayout, Values

_MAX_CACHED = 10_000
_MAX_CACHED_HEADER_CHARS = 200
_IPV6_PREFIX_BITS = 64


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a connection or of a request, as far as it is known."""

    ip: str | None = None
    address: str | None = None
    """the address under which it is counted; None: it is not counted"""
    bucket: Bucket | None = None
    """the tokens of this address"""
    is_proxy: bool = False
    """a trusted proxy, whose many clients have its address"""


UNKNOWN_CLIENT = Client()


class ClientAddresses:
    """Finds the client of a connection or request, and the address under which it is counted.

    Connections from `http.proxy_networks` are not counted, because behind a proxy all clients have its address. The
    client of a request on them is the one that `http.forwarded_header` names.
    """

    def __init__(self, http: HttpSettings, buckets: TokenBuckets) -> None:
        self._proxy_networks = http.proxy_networks
        self._header = None if http.forwarded_header == "none" else http.forwarded_header
        self._is_x_forwarded_for = http.forwarded_header == "x-forwarded-for"
        self._buckets = buckets
        self._find_cached = lru_cache(_MAX_CACHED)(self._find_ip)
        self._find_forwarded_cached = lru_cache(_MAX_CACHED)(self._find_forwarded)

    def find_peer(self, transport: asyncio.BaseTransport | None) -> Client:
        """Return the client of a connection by the address of its other end."""
        peer = transport.get_extra_info("peername") if transport is not None else None
        # A Unix socket has no address.
        return self._find_cached(peer[0]) if isinstance(peer, tuple) else UNKNOWN_CLIENT

    def find_ip(self, ip: str) -> Client:
        """Return the client with this address."""
        return self._find_cached(ip)

    def find(self, request: web.Request) -> Client:
        """Return the client of a request at aiohttp."""
        transport = request.transport
        client = getattr(transport.get_protocol(), "client", UNKNOWN_CLIENT) if transport else UNKNOWN_CLIENT
        if not client.is_proxy or self._header is None:
            return client
        return self._find_in_header(", ".join(request.headers.getall(self._header, ())))

    def find_bucket(self, client: Client, layout: HeaderLayout, values: Values) -> Bucket | None:
        """Return the tokens of the client of a request that came over the connection of `client`."""
        if not client.is_proxy or self._header is None:
            return client.bucket
        value = values[layout.x_forwarded_for if self._is_x_forwarded_for else layout.forwarded]
        return None if value is None else self._find_in_header(value.decode("latin-1")).bucket

    def _find_in_header(self, value: str) -> Client:
        find = self._find_forwarded_cached if len(value) <= _MAX_CACHED_HEADER_CHARS else self._find_forwarded
        return find(value)

    def _find_forwarded(self, value: str) -> Client:
        find = find_x_forwarded_for if self._is_x_forwarded_for else find_forwarded
        address = find(value, self._is_proxy)
        return UNKNOWN_CLIENT if address is None else self._find_cached(str(address))

    def _find_ip(self, ip: str) -> Client:
        address = parse_ip(ip)
        if address is None:
            return UNKNOWN_CLIENT
        if self._is_proxy(address):
            return Client(is_proxy=True)
        group = str(address)
        if isinstance(address, IPv6Address):  # a client chooses the last 64 bits itself
            group = str(IPv6Network((address, _IPV6_PREFIX_BITS), strict=False))
        return Client(str(address), group, self._buckets.hold(group))

    def _is_proxy(self, address: IpAddress) -> bool:
        return any(address in network for network in self._proxy_networks)
