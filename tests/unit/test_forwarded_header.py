"""The client's address in X-Forwarded-For and Forwarded: the rightmost one that is no proxy's."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.forwarded_header import IpAddress, find_forwarded, find_x_forwarded_for, parse_ip

_PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def _is_proxy(address: IpAddress) -> bool:
    return any(address in network for network in _PROXIES)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 , 10.0.0.1,10.0.0.2 ", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # the client invented the left one
        ("10.0.0.9, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
        ("203.0.113.7, nonsense, 10.0.0.1", None),
        ("203.0.113.7, , 10.0.0.1", None),
        ("10.0.0.9, 10.0.0.1", None),
        ("203.0.113.7" + ",10.0.0.1" * 30, None),
        ("unknown", None),
        ("", None),
    ],
)
def test_x_forwarded_for_names_rightmost_client(value: str, expected: str | None) -> None:
    address = find_x_forwarded_for(value, _is_proxy)
    assert (None if address is None else str(address)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('For="203.0.113.7:4711";proto=https;by=10.0.0.1', "203.0.113.7"),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ("proto=http; for=203.0.113.7, for=10.0.0.1", "203.0.113.7"),
        ('for=198.51.100.1;by="a,b", for=203.0.113.7', "203.0.113.7"),
        (r'for="203.0.113\.7"', "203.0.113.7"),
        ('", for=203.0.113.7', "203.0.113.7"),  # the client sent the first element, its proxy the second
        ("x, for=203.0.113.7", "203.0.113.7"),
        ('for="198.51.100.1, for=203.0.113.7', "203.0.113.7"),
        (", for=203.0.113.7,", "203.0.113.7"),
        ('for="a,b", for=10.0.0.1', None),
        ("for=203.0.113.7, for=_hidden", None),
        ("for=203.0.113.7, for=unknown, for=10.0.0.1", None),
        ("for=203.0.113.7, proto=http", None),
        ('for=203.0.113.7, for="10.0.0.1', None),
        ("for=203.0.113.7 for=203.0.113.8", None),
        ("203.0.113.7", None),
        ("for=10.0.0.1", None),
        ("", None),
    ],
)
def test_forwarded_names_rightmost_client(value: str, expected: str | None) -> None:
    address = find_forwarded(value, _is_proxy)
    assert (None if address is None else str(address)) == expected


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5", "[1::2", "1.2.3.4:", "1.2.3.4:x", "::1::", "１.2.3.4"])
def test_text_that_is_no_address_is_none(text: str) -> None:
    assert parse_ip(text) is None
