"""Answers that end a connection reach a client that is still sending, within limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import orjson
import pytest
from aiohttp import web

from config.settings import Settings
from gateway.metrics import CONNECTIONS
from gateway.operations import Call, Operation
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect, has_no_connections, read_all
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.raw_http import RawReply
from tests.support.sales import eventually, make_sale

BODY_BYTES = 3_000_000
LARGE_BYTES = 8_000_000
LIMITS = {"request_body_timeout_s": 0.2, "linger_timeout_s": 2, "linger_bytes": 20_000_000, "header_line_bytes": 2_000}


@pytest.fixture(params=[True, False], ids=["fast path", "aiohttp"])
async def gateway(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits=LIMITS), fast_path=request.param) as test_gateway:
        yield test_gateway


def head(gateway: TestGateway, *lines: str, path: str = "/v1/orders") -> bytes:
    fixed = ("Host: x", f"Authorization: Bearer {token(gateway.settings)}", "Content-Type: application/json")
    return "\r\n".join([f"POST {path} HTTP/1.1", *fixed, "Idempotency-Key: k", *lines, "", ""]).encode()


async def send_all_then_read(gateway: TestGateway, data: bytes, pause_s: float = 0) -> list[RawReply]:
    """Send everything before reading anything, as many HTTP clients do."""
    client = await connect(gateway, receive_bytes=4_096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    loop = asyncio.get_running_loop()
    half = len(data) // 2
    await loop.sock_sendall(client, data[:half])
    await asyncio.sleep(pause_s)
    await loop.sock_sendall(client, data[half:])
    client.shutdown(socket.SHUT_WR)
    replies = await read_all(client)
    client.close()
    return replies


async def test_answers_reach_clients_that_send_everything_first(gateway: TestGateway) -> None:
    """aiohttp itself waits a second for the rest of a body; the pauses are longer."""
    body = b"x" * BODY_BYTES
    length = f"Content-Length: {BODY_BYTES}"
    cases = {
        "length": (413, head(gateway, length) + body, 1.3),
        "chunks": (
            413,
            head(gateway, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (BODY_BYTES, body),
            1.3,
        ),
        "not allowed": (405, head(gateway, length, path="/v1/variants") + body, 1.3),
        "head": (431, head(gateway, "X-Long: " + "y" * 5_000, length) + body, 0.3),
        "late body": (408, head(gateway, "Content-Length: 200000") + body[:150_000], 1.6),
        "not HTTP": (400, b"\x16\x03\x01" + body, 0.3),
    }
    async with asyncio.timeout(20):
        replies = await asyncio.gather(
            *(send_all_then_read(gateway, data, pause_s) for _, data, pause_s in cases.values())
        )
    for (name, (status, *_)), [reply, *_] in zip(cases.items(), replies, strict=True):
        assert (reply.status, orjson.loads(reply.body)["status"]) == (status, status), name
    await eventually(lambda: has_no_connections(gateway))


async def test_refusal_of_connection_reaches_client_that_sends_at_once(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits={**LIMITS, "connections": 1})) as gateway:
        first = await connect(gateway)
        order = build_order_request(gateway, sale_id, 1)
        [refusal] = await send_all_then_read(gateway, order + b" " * 200_000, 0.2)
        assert (refusal.status, refusal.header("connection")) == (503, "close")
        first.close()


async def test_refused_connections_that_stay_open_are_at_most_a_hundred(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    """A flood gets no more answers than that; the rest is reset at once, and all count as open."""
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits={**LIMITS, "connections": 1, "linger_timeout_s": 60})) as gateway:
        clients = [await connect(gateway) for _ in range(131)]
        gauge = CONNECTIONS.labels("public")

        async def is_counted() -> bool:
            return bool(gauge._value.get() == 101)

        await eventually(is_counted)
        firsts = await asyncio.gather(*(receive_first(client) for client in clients[1:]))
        assert sorted(map(len, firsts))[:31].count(0) == 30
        for client in clients:
            client.close()

        async def is_over() -> bool:
            return bool(gauge._value.get() == 0)

        await eventually(is_over)


async def receive_first(client: socket.socket) -> bytes:
    """Read the first bytes of an answer; none if the gateway has reset the connection."""
    try:
        return await asyncio.get_running_loop().sock_recv(client, 65_536)
    except ConnectionError:
        return b""


async def answer_large(_: Call) -> web.Response:
    """Answer more than the kernel takes at once, and end the connection."""
    response = web.Response(body=bytes(LARGE_BYTES))
    response.force_close()
    return response


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "aiohttp"])
async def test_large_answer_that_ends_the_connection_reaches_slow_client_in_full(
    make_settings: Callable[..., Settings], shop: CliServices, fast_path: bool
) -> None:
    """The client reads for longer than each timeout, and never stops for as long as one."""
    operation = Operation(
        method="GET",
        path="/v1/large",
        handler=answer_large,
        summary="Answer much",
        tag="test",
        access="anyone",
        answers={200: ("many bytes", None)},
    )
    limits = {"linger_timeout_s": 0.7, "request_head_timeout_s": 0.7}
    async with open_gateway(make_settings(limits=limits), [operation], fast_path=fast_path) as gateway:
        loop = asyncio.get_running_loop()
        client = await connect(gateway, receive_bytes=65_536)
        await loop.sock_sendall(client, b"GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n")
        started, received = loop.time(), 0
        while data := await receive_first(client):
            received += len(data)
            await asyncio.sleep(0.015)
        assert loop.time() - started > 1.5
        assert received > LARGE_BYTES
        client.close()


async def send_forever(client: socket.socket) -> None:
    async with asyncio.timeout(20):
        while True:
            await asyncio.get_running_loop().sock_sendall(client, bytes(100_000))


async def test_client_that_never_ends_is_cut_off(gateway: TestGateway) -> None:
    """After `linger_timeout_s`, or `linger_bytes` if it goes on sending."""
    idle = await connect(gateway)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(idle, b"\x16\x03\x01 is not HTTP\r\n\r\n")
    flood = await connect(gateway)
    await loop.sock_sendall(flood, head(gateway, "Content-Length: 900000000"))
    with pytest.raises(ConnectionError):
        await send_forever(flood)
    await eventually(lambda: has_no_connections(gateway))
    assert [reply.status for reply in await read_all(idle)] == [400]
    idle.close()
    flood.close()
