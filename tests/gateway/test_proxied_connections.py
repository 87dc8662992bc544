"""Connections of a load balancer that begin with a header of the PROXY protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from config.settings import Settings
from tests.gateway.test_slow_clients import connect, read_all, tracked_connections
from tests.support.gateway import TestGateway, open_gateway
from tests.support.sales import eventually
from tests.unit.test_proxy_protocol import v2, v2_addresses

_REQUEST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_WARNING = "closed connections of a proxy without a valid PROXY protocol header"


@pytest.fixture
async def gateway(make_settings: Callable[..., Settings]) -> AsyncIterator[TestGateway]:
    limits = {"connections_per_address": 2, "request_head_timeout_s": 1}
    async with open_gateway(make_settings(http={"proxy_protocol": True}, limits=limits)) as test_gateway:
        yield test_gateway


async def _send(client: socket.socket, *parts: bytes) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        await asyncio.get_running_loop().sock_sendall(client, part)
        await asyncio.sleep(0)


async def _open(gateway: TestGateway, header: bytes) -> socket.socket:
    client = await connect(gateway)
    await _send(client, header)
    return client


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n",
        b"PROXY UNKNOWN\r\n",
        v2(0x21, 0x21, v2_addresses("2001:db8::7", "fd00::1")),
        v2(0x20, 0x00, b""),
    ],
)
async def test_request_after_header_is_answered_however_it_is_cut(gateway: TestGateway, header: bytes) -> None:
    data = header + _REQUEST
    for cuts in ([len(data)], range(1, len(data) + 1), [len(header) - 1, len(data)], [len(header), len(data)]):
        client = await connect(gateway)
        await _send(client, *(data[start:end] for start, end in zip([0, *cuts], cuts, strict=False)))
        [reply] = await read_all(client)
        assert reply.status == 200
        client.close()


async def test_connections_are_counted_by_stated_address(gateway: TestGateway) -> None:
    crowd = [await _open(gateway, b"PROXY TCP4 203.0.113.7 10.0.0.1 %d 443\r\n" % port) for port in (1, 2)]
    crowd += [await _open(gateway, v2(0x21, 0x21, v2_addresses(f"2001:db8::{number}", "fd00::1"))) for number in (1, 2)]
    crowd += [await _open(gateway, b"PROXY UNKNOWN\r\n") for _ in range(3)]

    async def is_open() -> bool:
        return len(tracked_connections(gateway)) == len(crowd)

    await eventually(is_open)
    assert gateway.connections._counts == {"203.0.113.7": 2, "2001:db8::/64": 2}
    for late_header in (
        b"PROXY TCP4 203.0.113.7 10.0.0.1 9 443\r\n" + _REQUEST,
        v2(0x21, 0x21, v2_addresses("2001:db8::3", "fd00::1")),
    ):
        late = await _open(gateway, late_header)
        [refusal] = await read_all(late)
        assert refusal.status == 503
        assert b"from your address" in refusal.body
        late.close()
    for client in crowd:
        client.close()

    async def is_empty() -> bool:
        return gateway.connections.open_count == 0

    await eventually(is_empty)
    assert not gateway.connections._counts


async def test_connection_without_header_is_closed(gateway: TestGateway, caplog: pytest.LogCaptureFixture) -> None:
    for data in (_REQUEST, b"PROXY TCP5 a b 1 2\r\n", b"PROXY"):  # the last one is not finished in time
        client = await _open(gateway, data)
        assert await read_all(client) == []
        client.close()
    assert len([message for message in caplog.messages if message.startswith(_WARNING)]) == 1


async def test_direct_connection_has_no_header(make_settings: Callable[..., Settings]) -> None:
    """Take the first bytes for the client's own, who may invent any address."""
    settings = make_settings(http={"proxy_protocol": True, "proxy_networks": []})
    async with open_gateway(settings) as gateway:
        assert (await gateway.call("GET", "/health/live", user=None)).status == 200
        client = await _open(gateway, b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n" + _REQUEST)
        replies = await read_all(client)
        assert [reply.status for reply in replies] == [400]
        client.close()
