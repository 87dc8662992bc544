"""The client's address in the headers that proxies add: X-Forwarded-For and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

IpAddress = IPv4Address | IPv6Address
_MAX_HOPS = 20
_MAX_COMMAS = 100
_IPV4_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_IPV6_IN_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
# An element of Forwarded: pairs of a token and a value, which may be a quoted string; RFC 7239, section 4.
_PAIR = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]*))\s*""")


def parse_ip(text: str) -> IpAddress | None:
    """Parse an address, with or without a port. None if it is none.

    An IPv4 address in the form of IPv6 becomes IPv4.
    """
    if match := _IPV6_IN_BRACKETS.fullmatch(text) or _IPV4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def find_x_forwarded_for(value: str, is_proxy: Callable[[IpAddress], bool]) -> IpAddress | None:
    """Return the rightmost address of an X-Forwarded-For that is no proxy's, None if there is none.

    Everything to the left of it was sent by the client and may be invented.
    """
    return _find_client(reversed(value.rsplit(",", _MAX_HOPS)), is_proxy)


def find_forwarded(value: str, is_proxy: Callable[[IpAddress], bool]) -> IpAddress | None:
    """Return the rightmost address of a Forwarded header that is no proxy's, None if there is none.

    Everything to the left of it was sent by the client and may be invented, or malformed.
    """
    return _find_client(_iter_forwarded(value), is_proxy)


def _find_client(hops: Iterator[str], is_proxy: Callable[[IpAddress], bool]) -> IpAddress | None:
    for hop in hops:
        address = parse_ip(hop.strip())
        if address is None or not is_proxy(address):
            return address  # what is left of an unreadable one may be invented
    return None


def _iter_forwarded(value: str) -> Iterator[str]:
    """Yield the `for` of each element from the right, empty where there is none, until one is malformed."""
    end = start = len(value)
    for _ in range(_MAX_COMMAS):
        start = value.rfind(",", 0, start)
        element = value[start + 1 : end].strip()
        address = _read_for(element) if element else None
        if address is not None:
            yield address
        if address is not None or not element:  # else the comma may stand in a quoted string
            end = start
        if start < 0:
            return


def _read_for(element: str) -> str | None:
    """Return the `for` of an element, empty if it has none. None if the element is malformed."""
    address, position = "", 0
    while True:
        match = _PAIR.match(element, position)
        if match is None:
            return None
        if match[1].lower() == "for":
            address = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        position = match.end()
        if position == len(element):
            return address
        if element[position] != ";":
            return None
        position += 1
