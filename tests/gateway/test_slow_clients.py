"""Clients that are slow, do not read or are too many, and a stop of the process meanwhile.

Each test runs with the fast path and without it.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

import lua
from config.settings import Settings
from gateway.connections import AiohttpConnection, TrackedConnection
from gateway.fast_path import ConnectionState, FastPathConnection
from lua import SaleKeys
from ops.services import CliServices
from tests.gateway.test_fast_path_equivalence import normalise
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.gateway_pair import SENTINEL, GatewayPair, open_gateway_pair
from tests.support.raw_http import RawReply, RequestScript, split_replies, yield_to_loop
from tests.support.sales import eventually, make_sale, order_body

LIMITS = {"request_head_timeout_s": 1.5, "request_body_timeout_s": 1.0, "connections": 3_000}
SLOW_CLIENTS = 1_000


@pytest.fixture(params=[True, False], ids=["fast path", "aiohttp"])
async def gateway(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits=LIMITS), fast_path=request.param) as test_gateway:
        yield test_gateway


def build_order_request(gateway: TestGateway, sale_id: str, number: int, *, key: str = "k") -> bytes:
    body = orjson.dumps(order_body(sale_id, ("a", 1)))
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(gateway.settings)}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nX-Request-Id: r-{number}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(gateway: TestGateway, *, receive_bytes: int | None = None) -> socket.socket:
    """Open a bare connection; with a small buffer, responses soon cannot be sent."""
    client = socket.socket()
    client.setblocking(False)
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", gateway.port))
    return client


async def read_all(client: socket.socket) -> list[RawReply]:
    """Read all responses until the gateway closes."""
    received = b""
    async with asyncio.timeout(20):
        try:
            while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
                received += data
        except ConnectionError:
            pass
    return split_replies(received)[0]


def tracked_connections(gateway: TestGateway) -> list[TrackedConnection]:
    """Return the gateway's side of all connections."""
    return [connection for connection in gateway.connections._connections if isinstance(connection, TrackedConnection)]


def buffered_bytes(connection: TrackedConnection) -> int:
    """Count the bytes that the gateway buffers for a connection, in both directions."""
    unread = len(connection._buffer) if isinstance(connection, FastPathConnection) else 0
    return unread + connection._transport.get_write_buffer_size()


def has_pending_response(connection: TrackedConnection) -> bool:
    if isinstance(connection, FastPathConnection):
        return connection._state is ConnectionState.ANSWERING
    assert isinstance(connection, AiohttpConnection)
    return connection._handler._current_request is not None and connection._handler.has_pending_response


async def stopped_reading(gateway: TestGateway) -> bool:
    return [connection._transport.is_reading() for connection in tracked_connections(gateway)] == [False]


async def has_no_connections(gateway: TestGateway) -> bool:
    return gateway.connections.open_count == 0


async def test_client_not_reading_is_not_read_and_then_aborted(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    client = await connect(gateway, receive_bytes=4_096)
    more_than_kernels_hold = build_order_request(gateway, sale_id, 1) * 60_000
    flood = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, more_than_kernels_hold))
    await eventually(lambda: stopped_reading(gateway))
    limit = gateway.settings.limits.body_bytes
    for _ in range(200):
        assert all(buffered_bytes(connection) < 3 * limit for connection in tracked_connections(gateway))
        await yield_to_loop()
    await eventually(lambda: has_no_connections(gateway))
    with pytest.raises(ConnectionError):
        await flood
    client.close()
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 49}


async def test_client_reading_late_gets_all_responses_in_sequence(gateway: TestGateway, sale_id: str) -> None:
    client = await connect(gateway, receive_bytes=4_096)
    count = 1_500

    async def send() -> None:
        await asyncio.get_running_loop().sock_sendall(
            client, b"".join(build_order_request(gateway, sale_id, n) for n in range(count))
        )
        client.shutdown(socket.SHUT_WR)

    sending = asyncio.create_task(send())
    await eventually(lambda: stopped_reading(gateway))
    answers = await read_all(client)
    await sending
    client.close()
    assert [answer.header("x-request-id") for answer in answers] == [f"r-{number}" for number in range(count)]
    assert [answer.status for answer in answers] == [202] + [200] * (count - 1)


async def test_thousand_half_requests_do_not_block_orders(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    whole = build_order_request(gateway, sale_id, 0, key="crowd")
    crowd = []
    try:
        for number in range(SLOW_CLIENTS):
            client = await connect(gateway)
            await loop.sock_sendall(client, whole[: len(whole) * (number % 3) // 3 or 10])
            crowd.append(client)
        bought = [await gateway.order(order_body(sale_id, ("a", 1))) for _ in range(20)]
        assert [answer.status for answer in bought] == [202] * 20
        await gateway.client.close()
        await eventually(lambda: has_no_connections(gateway))
    finally:
        for client in crowd:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 30}


async def test_graceful_stop_answers_pending_order_and_closes_others(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    """The pending order is answered and no other taken; idle connections close, new ones are refused."""
    loop = asyncio.get_running_loop()
    idle, half, ordering = await connect(gateway), await connect(gateway), await connect(gateway)
    await loop.sock_sendall(half, build_order_request(gateway, sale_id, 1, key="half")[:-5])
    await shop.redis.client_pause(700)
    await loop.sock_sendall(
        ordering,
        build_order_request(gateway, sale_id, 2, key="whole") + build_order_request(gateway, sale_id, 3, key="behind"),
    )

    async def is_pending() -> bool:
        return sum(map(has_pending_response, tracked_connections(gateway))) == 1 and gateway.connections.open_count == 3

    await eventually(is_pending)
    gateway.services.stopping.set()
    ending = asyncio.create_task(gateway.connections.close_all(10))
    assert await read_all(idle) == []
    await yield_to_loop()
    late = await connect(gateway)
    [refusal] = await read_all(late)
    assert (refusal.status, orjson.loads(refusal.body)["code"]) == (503, "overloaded")
    [answer] = await read_all(ordering)
    assert (answer.status, answer.header("x-request-id"), answer.header("connection")) == (202, "r-2", "close")
    [*_] = await read_all(half)
    await ending
    assert gateway.connections.open_count == 0
    for client in (idle, half, ordering, late):
        client.close()
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 49}


@pytest.fixture
async def gateways(
    make_settings: Callable[..., Settings], shop: CliServices, sale_prefix: str
) -> AsyncIterator[GatewayPair]:
    limits = {"request_head_timeout_s": 0.5, "request_body_timeout_s": 0.5}
    async with open_gateway_pair(make_settings(limits=limits), shop, sale_prefix) as test_gateway:
        yield test_gateway


async def test_fast_path_and_aiohttp_enforce_same_timeouts(gateways: GatewayPair) -> None:
    """Silence in any part of a request, and on a connection that is handed over to aiohttp."""
    whole = gateways.order(headers={b"X-Request-Id": b"mine"})
    coded: dict[bytes, bytes | None] = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
    chunked = gateways.order(body=b"", headers=coded)
    messages = {
        "nothing": (b"", 0),
        "a letter": (b"P", 0),
        "half a head": (whole[:100], 0),
        "half a body": (whole[:-10], 1),
        "no body": (whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", 1),
        "an order": (whole, 1),
        "an order and half of the next": (whole + whole[:50], 1),
        "an order and half of the next body": (whole + whole[:-5], 2),
        "a read": (SENTINEL, 1),
        "a read and half of the next": (SENTINEL + SENTINEL[:20], 1),
        "an order in chunks": (chunked + b"0\r\n\r\n", 1),
        "an order in chunks that end": (chunked + b"5\r\n{", 1),
        "an order in chunks and half a head": (chunked + b"0\r\n\r\n" + whole[:90], 1),
        "an order of another type, in part": (whole.replace(b"/json", b"/JSON")[:-9], 1),
    }
    scripts = [RequestScript((data,), end="keep", answers=99) for data, _ in messages.values()]
    replies = await asyncio.gather(*map(gateways.send_to_both, scripts))
    for (name, (_, count)), (fast, slow) in zip(messages.items(), replies, strict=True):
        assert normalise(gateways, [fast]) == normalise(gateways, [slow]), name
        assert (len(fast.answers), fast.closed) == (count, True), name
    late = replies[list(messages).index("half a body")][0].answers[0]
    assert (late.status, late.header("connection"), late.header("x-request-id")) == (408, "close", "mine")
