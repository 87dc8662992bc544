"""Clients that are slow, do not read, or are far too many; and the end of the process in the middle of it all.

On the express lane and without it.
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
from tests.gateway.test_fast_path_equivalence import meaning
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.gateway_pair import SENTINEL, GatewayPair, open_gateway_pair
from tests.support.raw_http import RawReply, RequestScript, split_replies, yield_to_loop
from tests.support.sales import eventually, make_sale, order_body

LIMITS = {"request_head_timeout_s": 1.5, "request_body_timeout_s": 1.0, "connections": 3_000}
SLOW_CLIENTS = 1_000


@pytest.fixture(params=[True, False], ids=["lane", "ordinary"])
async def gateway(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits=LIMITS), express=request.param) as found:
        yield found


def order(gateway: TestGateway, sale_id: str, number: int, *, key: str = "k") -> bytes:
    body = orjson.dumps(order_body(sale_id, ("a", 1)))
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(gateway.settings)}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nX-Request-Id: r-{number}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(gateway: TestGateway, *, receive_bytes: int | None = None) -> socket.socket:
    """A bare connection; with a small buffer, answers soon have nowhere to go."""
    made = socket.socket()
    made.setblocking(False)
    if receive_bytes is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", gateway.port))
    return made


async def read_all(client: socket.socket) -> list[RawReply]:
    """All answers until the gateway closes."""
    heard = b""
    async with asyncio.timeout(20):
        try:
            while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
                heard += data
        except ConnectionError:
            pass
    return split_replies(heard)[0]


def tracked_connections(gateway: TestGateway) -> list[TrackedConnection]:
    """The gateway's side of all connections."""
    return [client for client in gateway.connections._connections if isinstance(client, TrackedConnection)]


def held_bytes(connection: TrackedConnection) -> int:
    """What the gateway keeps for a connection, both ways."""
    waiting = len(connection._buffer) if isinstance(connection, FastPathConnection) else 0
    return waiting + connection._transport.get_write_buffer_size()


def has_pending_response(connection: TrackedConnection) -> bool:
    if isinstance(connection, FastPathConnection):
        return connection._state is ConnectionState.PLACING_ORDER
    assert isinstance(connection, AiohttpConnection)
    return connection._handler._current_request is not None and connection._handler.has_pending_response


async def stopped_reading(gateway: TestGateway) -> bool:
    return [connection._transport.is_reading() for connection in tracked_connections(gateway)] == [False]


async def has_no_connections(gateway: TestGateway) -> bool:
    return gateway.connections.open_count == 0


async def test_who_does_not_read_is_not_read_and_then_cut_off(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    client = await connect(gateway, receive_bytes=4_096)
    more_than_kernels_hold = order(gateway, sale_id, 1) * 60_000
    flood = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, more_than_kernels_hold))
    await eventually(lambda: stopped_reading(gateway))
    limit = gateway.settings.limits.body_bytes
    for _ in range(200):
        assert all(held_bytes(connection) < 3 * limit for connection in tracked_connections(gateway))
        await yield_to_loop()
    await eventually(lambda: has_no_connections(gateway))
    with pytest.raises(ConnectionError):
        await flood
    client.close()
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 49}


async def test_who_reads_late_finds_every_answer_in_its_place(gateway: TestGateway, sale_id: str) -> None:
    client = await connect(gateway, receive_bytes=4_096)
    count = 1_500

    async def say() -> None:
        await asyncio.get_running_loop().sock_sendall(
            client, b"".join(order(gateway, sale_id, n) for n in range(count))
        )
        client.shutdown(socket.SHUT_WR)

    saying = asyncio.create_task(say())
    await eventually(lambda: stopped_reading(gateway))
    answers = await read_all(client)
    await saying
    client.close()
    assert [answer.header("x-request-id") for answer in answers] == [f"r-{number}" for number in range(count)]
    assert [answer.status for answer in answers] == [202] + [200] * (count - 1)


async def test_a_crowd_that_says_half_keeps_nobody_from_buying(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    whole = order(gateway, sale_id, 0, key="crowd")
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


async def test_the_end_in_the_middle_of_an_order(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    """It is answered and no more is taken; who waits or has said half is let go at once; who comes now is told."""
    loop = asyncio.get_running_loop()
    idle, half, buyer = await connect(gateway), await connect(gateway), await connect(gateway)
    await loop.sock_sendall(half, order(gateway, sale_id, 1, key="half")[:-5])
    await shop.redis.client_pause(700)
    await loop.sock_sendall(buyer, order(gateway, sale_id, 2, key="whole") + order(gateway, sale_id, 3, key="behind"))

    async def taken() -> bool:
        return sum(map(has_pending_response, tracked_connections(gateway))) == 1 and gateway.connections.open_count == 3

    await eventually(taken)
    gateway.services.stopping.set()
    ending = asyncio.create_task(gateway.connections.close_all(10))
    assert await read_all(idle) == []
    await yield_to_loop()
    late = await connect(gateway)
    [told] = await read_all(late)
    assert (told.status, orjson.loads(told.body)["code"]) == (503, "overloaded")
    [answer] = await read_all(buyer)
    assert (answer.status, answer.header("x-request-id"), answer.header("connection")) == (202, "r-2", "close")
    [*_] = await read_all(half)
    await ending
    assert gateway.connections.open_count == 0
    for client in (idle, half, buyer, late):
        client.close()
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 49}


@pytest.fixture
async def gateways(
    make_settings: Callable[..., Settings], shop: CliServices, sale_prefix: str
) -> AsyncIterator[GatewayPair]:
    limits = {"request_head_timeout_s": 0.5, "request_body_timeout_s": 0.5}
    async with open_gateway_pair(make_settings(limits=limits), shop, sale_prefix) as found:
        yield found


async def test_both_ways_have_the_same_patience(gateways: GatewayPair) -> None:
    """With silence in any place of a request, and on a connection that aiohttp was given for good."""
    whole = gateways.order(headers={b"X-Request-Id": b"mine"})
    coded: dict[bytes, bytes | None] = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
    chunked = gateways.order(body=b"", headers=coded)
    said = {
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
    scripts = [RequestScript((data,), end="keep", answers=99) for data, _ in said.values()]
    heard = await asyncio.gather(*map(gateways.talk, scripts))
    for (name, (_, count)), (lane, slow) in zip(said.items(), heard, strict=True):
        assert meaning(gateways, [lane]) == meaning(gateways, [slow]), name
        assert (len(lane.answers), lane.closed) == (count, True), name
    late = heard[list(said).index("half a body")][0].answers[0]
    assert (late.status, late.header("connection"), late.header("x-request-id")) == (408, "close", "mine")
