"""The HTTP client for addresses that people name: it reaches the public internet, and nothing inside.

A URL can name an address inside in many ways: by a literal, by a name that resolves to it, at the second look-up only,
or by a redirect. So names are resolved here, once, and the connection goes to an address that was checked; redirects
are not followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from commerce.kernel.errors import AddressNotPublic, Invalid
from commerce.kernel.external import HttpResponse
from commerce.kernel.http_client import AiohttpTransport

MAX_URL_CHARS = 2_000
_SCHEMES = ("http", "https")
_NOT_IN_URLS = '\\^`{}|"<>'
_SEND_ONE = "send one like https://example.com/picture.jpg"
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""RFC 6052 and 8215: the last 32 bits are an IPv4 address"""
_NOT_PUBLIC = tuple(ip_network(network) for network in ("192.88.99.0/24", "fec0::/10", "::/96"))
"""beside what `is_global` knows: relays of 6to4, site-local addresses, and IPv4-compatible ones"""
Network = IPv4Network | IPv6Network


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses. A name with any other address is refused as a whole.

    Addresses in `allowed` pass, too."""

    def __init__(self, resolver: AbstractResolver, allowed: Sequence[Network] = ()) -> None:
        self._resolver = resolver
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if not results or not all(is_public(result["host"], self._allowed) for result in results):
            raise AddressNotPublic(f"{host} has an address that is not public: name a public host")
        return results

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Tell whether an address is on the public internet or in `allowed`, with each one that it wraps."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        return False
    if any(parsed in network for network in allowed):
        return True
    addresses = [parsed, *(_unwrap(parsed) if isinstance(parsed, IPv6Address) else ())]
    is_translated = any(parsed in network for network in _NAT64)
    return all(_is_global(part) for part in (addresses[1:] if is_translated or _is_mapped(parsed) else addresses))


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    is_other = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not address.is_reserved and not is_other


def _is_mapped(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def _unwrap(address: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address stands for, by mapping, translation or tunnel."""
    wrapped = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _NAT64):
        wrapped.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return [part for part in wrapped if part is not None]


def check_public_url(url: str, ports: Iterable[int], allowed: Iterable[Network] = ()) -> None:
    """Check what can be checked of a URL before its name is resolved. Raises `Invalid`.

    It is http or https, without user and password, on one of `ports`, and its host is a name or a public address."""
    if len(url) > MAX_URL_CHARS or not url.isascii() or any(letter <= " " or letter in _NOT_IN_URLS for letter in url):
        raise Invalid(f"the URL has characters that belong encoded, or more than {MAX_URL_CHARS}: send it encoded")
    try:
        parts = URL(url)  # as aiohttp reads it
        port, host = parts.port, parts.host or ""
    except ValueError:
        raise Invalid(f"this is no URL: {_SEND_ONE}") from None
    if parts.scheme not in _SCHEMES or not host or "%" in parts.authority:
        raise Invalid(f"the URL is neither http nor https, or has no usual host: {_SEND_ONE}")
    if parts.user is not None or parts.password is not None:
        raise Invalid("the URL has a user or a password: name a file that needs none")
    if port not in set(ports):
        raise AddressNotPublic(f"the URL names port {port}: only {', '.join(map(str, ports))} can be used")
    is_literal = ":" in host or _ends_in_number(host)
    if is_literal and not is_public(host, allowed):
        raise AddressNotPublic(f"{host} is no public address: name a public host")


def _ends_in_number(host: str) -> bool:
    """Tell whether a host is an IPv4 address in some notation.

    Systems read 127.1, 0177.0.0.1 and 2130706433 as addresses; only the usual notation can be a public
    one here. Source: https://url.spec.whatwg.org/#ends-in-a-number-checker"""
    last = host.rstrip(".").rpartition(".")[2].lower()
    return last.isdigit() or (last.startswith("0x") and all(letter in "0123456789abcdef" for letter in last[2:]))


class PublicTransport:
    """Sends requests to URLs that people name. Redirects are answers like others; nothing is decompressed."""

    def __init__(self, transport: AiohttpTransport, ports: Sequence[int], allowed: Sequence[Network]) -> None:
        self._transport = transport
        self._ports = ports
        self._allowed = allowed

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        """Send one request.

        Raises `Invalid`, also as `AddressNotPublic`, and `ExternalOutcomeUnknown`."""
        check_public_url(url, self._ports, self._allowed)
        return await self._transport.send(method, url, {"Accept-Encoding": "identity", **headers}, body)


@asynccontextmanager
async def open_public_transport(
    *,
    timeout_s: float,
    connections: int,
    max_response_bytes: int,
    ports: Sequence[int] = (80, 443),
    allowed: Sequence[Network] = (),
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[PublicTransport]:
    """Open a transport for URLs that people name. `timeout_s` is for a whole request, from the look-up on.

    `allowed` has networks beside the public internet."""
    checked = PublicResolver(resolver or aiohttp.ThreadedResolver(), allowed)
    # Without a cache each connection's address is checked; kept connections would outlive a check.
    connector = aiohttp.TCPConnector(limit=connections, resolver=checked, use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield PublicTransport(AiohttpTransport(session, max_response_bytes), ports, allowed)
