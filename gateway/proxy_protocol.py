"""The PROXY protocol, versions 1 and 2: a load balancer states the client before the first byte.

See https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. A connection is read here until its header is whole;
then it belongs to another protocol, and this one costs nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, cast

from commerce.kernel.clock import Clock
from gateway.connections import ConnectionRegistry, TrackedConnection

_logger = logging.getLogger(__name__)
_V1_START = b"PROXY "
_V1_MAX_BYTES = 107
_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD_BYTES = 16
_V2_MAX_BYTES = 4_096
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_UNKNOWN_FAMILIES = {0x00: 0, 0x31: 216}
"""unspecified and Unix sockets, with the bytes of their addresses"""
_V2_TCP4, _V2_TCP6 = 0x11, 0x21
_MAX_PORT = 65_535
_LOG_INTERVAL_S = 10.0


class ProxyHeader(NamedTuple):
    """A header: the client's address, None if it states none, and the header's length in bytes."""

    ip: str | None
    length: int


class MalformedProxyHeader(Exception):
    """The connection does not begin with a valid header."""


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header at the start of `data`. Returns None if more bytes are needed.

    Raises `MalformedProxyHeader` as soon as no more bytes can make it valid.
    """
    if data.startswith(_V2_SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1_START):
        return _read_v1(data)
    if _V1_START.startswith(data) or _V2_SIGNATURE.startswith(data):
        return None
    raise MalformedProxyHeader("it begins with neither PROXY nor the signature of version 2")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, _V1_MAX_BYTES) + 1
    if not end:
        if len(data) >= _V1_MAX_BYTES:
            raise MalformedProxyHeader(f"its line is longer than {_V1_MAX_BYTES} bytes")
        return None
    match = _V1_LINE.fullmatch(data, 0, end)
    if match is None:
        raise MalformedProxyHeader("its line is malformed")
    family, source, destination, *ports = match.groups()
    if family is None:
        return ProxyHeader(None, end)
    kind = IPv4Address if family == b"4" else IPv6Address
    try:
        address, _ = (kind(text.decode()) for text in (source, destination))
    except ValueError:
        raise MalformedProxyHeader(f"its line has no two addresses of TCP{family.decode()}") from None
    if any(int(port) > _MAX_PORT for port in ports):
        raise MalformedProxyHeader("its line has an impossible port")
    return ProxyHeader(str(address), end)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD_BYTES:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    end = _V2_HEAD_BYTES + length
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise MalformedProxyHeader(f"its version and command are 0x{command:02x}")
    if end > _V2_MAX_BYTES:
        raise MalformedProxyHeader(f"it is longer than {_V2_MAX_BYTES} bytes")
    address_bytes = 0
    if command == _V2_PROXY:
        address_bytes = {_V2_TCP4: 4, _V2_TCP6: 16}.get(family, 0)
        if not address_bytes and family not in _V2_UNKNOWN_FAMILIES:
            raise MalformedProxyHeader(f"its family and protocol are 0x{family:02x}")
        # Two addresses and two ports; what follows them are optional values of the proxy, which nobody needs here.
        if length < (2 * address_bytes + 4 if address_bytes else _V2_UNKNOWN_FAMILIES[family]):
            raise MalformedProxyHeader("it is too short for its addresses")
    if len(data) < end:
        return None
    source = data[_V2_HEAD_BYTES : _V2_HEAD_BYTES + address_bytes]
    return ProxyHeader(str(ip_address(source)) if source else None, end)


class ProxiedConnections:
    """Makes the connections of a port to which proxies connect with a header, for `create_server`.

    A connection from elsewhere has no header: its first bytes are its client's, who may invent any.
    """

    def __init__(
        self, connections: ConnectionRegistry, clock: Clock, make_connection: Callable[[], TrackedConnection]
    ) -> None:
        self.connections = connections
        self.make_connection = make_connection
        self._clock = clock
        self._logged_at: float | None = None
        self._refused = 0

    def __call__(self) -> asyncio.Protocol:
        return _HeaderReader(self)

    def log_refusal(self, peer: object, reason: str) -> None:
        """Log a connection without a valid header; those of the next seconds are only counted."""
        self._refused += 1
        now = self._clock.monotonic()
        if self._logged_at is None or now - self._logged_at >= _LOG_INTERVAL_S:
            _logger.warning(
                "closed connections of a proxy without a valid PROXY protocol header: set the proxy to send it, or"
                " http.proxy_protocol to false",
                extra={"peer": str(peer), "reason": reason, "count": self._refused},
            )
            self._logged_at, self._refused = now, 0


class _HeaderReader(asyncio.Protocol):
    """A connection whose header has not arrived yet; it is registered, so the limits of connections hold."""

    def __init__(self, proxied: ProxiedConnections) -> None:
        self._proxied = proxied
        self._connections = proxied.connections
        self._since = asyncio.get_running_loop().time()
        self._buffer = b""
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._connections.find_client(transport).is_proxy:
            self._admitted = self._connections.register(self, transport)
        else:
            self._begin(None)

    def data_received(self, data: bytes) -> None:
        if not self._admitted:
            return
        self._buffer += data
        try:
            header = read_proxy_header(self._buffer)
        except MalformedProxyHeader as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._connections.remove(self)
            self._begin(header.ip, self._buffer[header.length :])

    def _begin(self, stated_ip: str | None, data: bytes = b"") -> None:
        """Pass the connection on, with the bytes that follow the header."""
        connection = self._proxied.make_connection()
        connection.stated_ip = stated_ip
        self._transport.set_protocol(cast(asyncio.Protocol, connection))  # one, though not by inheritance
        connection.connection_made(self._transport)
        if data:
            cast(asyncio.Protocol, self._transport.get_protocol()).data_received(data)

    def _refuse(self, reason: str) -> None:
        self._proxied.log_refusal(self._transport.get_extra_info("peername"), reason)
        self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)

    # Calls of the registry.

    def enforce_timeouts(self, now: float) -> None:
        if now - self._since > self._connections.limits.request_head_timeout_s:
            self._refuse("it did not arrive in time")

    def close_gracefully(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
