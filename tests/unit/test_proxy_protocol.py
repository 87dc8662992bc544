"""Headers of the PROXY protocol, cut at every byte."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from gateway.proxy_protocol import MalformedProxyHeader, ProxyHeader, read_proxy_header

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_REST = b"\r\nPOST /v1/orders HTTP/1.1\r\n"


def v2(command: int, family: int, content: bytes) -> bytes:
    """Build a header of version 2."""
    return _SIGNATURE + bytes((command, family)) + len(content).to_bytes(2) + content


def v2_addresses(source: str, destination: str) -> bytes:
    """Build the addresses and ports of a header of version 2."""
    return ip_address(source).packed + ip_address(destination).packed + b"\x12\x67\x01\xbb"


_IPV4, _IPV6 = v2_addresses("203.0.113.7", "10.0.0.1"), v2_addresses("2001:db8::7", "fd00::1")
_TLVS = b"\x03\0\x04\1\2\3\4\x20\0\x0b\1\0\0\0\0\x21\0\3abc\x04\0\0"


@pytest.mark.parametrize(
    ("header", "ip"),
    [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", "203.0.113.7"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
        (b"PROXY TCP6 2001:db8::7 fd00::1 4711 443\r\n", "2001:db8::7"),
        (b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", ":".join(["ffff"] * 8)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n", None),
        (v2(0x21, 0x11, _IPV4), "203.0.113.7"),
        (v2(0x21, 0x21, _IPV6), "2001:db8::7"),
        (v2(0x21, 0x11, _IPV4 + _TLVS), "203.0.113.7"),
        (v2(0x21, 0x21, _IPV6 + b"\x20\x0f\x8c" + bytes(3_980)), "2001:db8::7"),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, _IPV4), None),
        (v2(0x20, 0xFF, b"x"), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x31, bytes(216)), None),
    ],
)
def test_header_cut_anywhere_is_read(header: bytes, ip: str | None) -> None:
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None
    for rest in (b"", _REST):
        assert read_proxy_header(header + rest) == ProxyHeader(ip, len(header))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"POST /v1/orders HTTP/1.1\r\n", "neither PROXY"),
        (b"proxy TCP4 203.0.113.7 10.0.0.1 4711 443\r\n", "neither PROXY"),
        (b"\r\n\r\nPOST", "neither PROXY"),
        (b"PROXY\tTCP4 203.0.113.7 10.0.0.1 4711 443\r\n", "neither PROXY"),
        (b"PROXY TCP4  203.0.113.7 10.0.0.1 4711 443\r\n", "malformed"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n", "malformed"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n", "malformed"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443 x\r\n", "malformed"),
        (b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 443\r\n", "malformed"),
        (b"PROXY UNKNOWNX\r\n", "malformed"),
        (b"PROXY TCP4 203.0.113 10.0.0.1 4711 443\r\n", "no two addresses of TCP4"),
        (b"PROXY TCP4 2001:db8::7 fd00::1 4711 443\r\n", "no two addresses of TCP4"),
        (b"PROXY TCP6 203.0.113.7 10.0.0.1 4711 443\r\n", "no two addresses of TCP6"),
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 65536\r\n", "impossible port"),
        (b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n", "longer than 107"),
        (v2(0x22, 0x11, _IPV4), "command are 0x22"),
        (v2(0x11, 0x11, _IPV4), "command are 0x11"),
        (v2(0x21, 0x12, _IPV4), "protocol are 0x12"),
        (v2(0x21, 0x41, _IPV4), "protocol are 0x41"),
        (v2(0x21, 0x11, _IPV4[:-1]), "too short"),
        (v2(0x21, 0x21, _IPV4), "too short"),
        (v2(0x21, 0x31, bytes(215)), "too short"),
        (v2(0x21, 0x11, _IPV4 + bytes(5_000)), "longer than 4096"),
    ],
)
def test_malformed_header_is_refused_however_it_arrives(header: bytes, reason: str) -> None:
    with pytest.raises(MalformedProxyHeader, match=reason):
        read_proxy_header(header)
    for end in range(len(header)):
        try:
            assert read_proxy_header(header[:end]) is None
        except MalformedProxyHeader:
            break  # and from here on
