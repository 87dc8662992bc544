"""What comes over the wire before there is a request: slow, torn, too much, or no HTTP at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.sales import eventually, make_sale, order_body

LIMITS = {"request_head_timeout_s": 0.4, "request_body_timeout_s": 0.4, "connections": 8, "headers_per_request": 20}


@pytest.fixture
async def gateway(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings(limits=LIMITS)) as found:
        yield found


class RawClient:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, gateway: TestGateway) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", gateway.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode()
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, body

    async def closed(self) -> bool:
        """Whether the other side ends the connection, with nothing more to say."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5) == b""
        except ConnectionError:
            return True


@pytest.fixture
async def raw_client(gateway: TestGateway) -> AsyncIterator[RawClient]:
    made = await RawClient.to(gateway)
    yield made
    made.writer.close()


def request(gateway: TestGateway, sale_id: str, *, key: str = "k", extra: str = "") -> bytes:
    """A good order as bytes."""
    body = orjson.dumps(order_body(sale_id, ("a", 1)))
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(gateway.settings)}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


async def test_pipelined_orders_are_answered_in_turn(gateway: TestGateway, raw_client: RawClient, sale_id: str) -> None:
    await raw_client.send(b"".join(request(gateway, sale_id, key=f"k{n}") for n in range(5)))
    answers = [await raw_client.answer() for _ in range(5)]
    assert [status for status, _, _ in answers] == [202] * 5
    assert len({body for _, _, body in answers}) == 5


async def test_byte_by_byte(gateway: TestGateway, raw_client: RawClient, sale_id: str) -> None:
    for byte in request(gateway, sale_id):
        await raw_client.send(bytes([byte]))
    assert (await raw_client.answer())[0] == 202


async def test_a_head_that_dribbles_is_cut_off(gateway: TestGateway, raw_client: RawClient, sale_id: str) -> None:
    await raw_client.send(b"POST /v1/orders HTTP/1.1\r\nHost: x\r\n")
    started = asyncio.get_running_loop().time()

    async def dribble() -> None:
        for _ in range(200):
            await raw_client.send(b"X-A: b\r\n")
            await asyncio.sleep(0.05)

    dribbling = asyncio.create_task(dribble())
    assert await raw_client.closed()
    assert asyncio.get_running_loop().time() - started < 3
    dribbling.cancel()


async def test_a_connection_that_says_nothing_is_cut_off(gateway: TestGateway, raw_client: RawClient) -> None:
    assert await raw_client.closed()


async def test_an_idle_connection_is_cut_off_after_its_answer(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(request(gateway, sale_id))
    assert (await raw_client.answer())[0] == 202
    assert await raw_client.closed()


async def test_a_body_that_dribbles_gets_408(
    shop: CliServices, gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    data = request(gateway, sale_id)
    await raw_client.send(data[:-10])
    status, headers, body = await raw_client.answer()
    assert (status, headers["content-type"]) == (408, "application/problem+json")
    assert orjson.loads(body)["code"] == "request_timeout"
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 50}


async def test_a_client_that_leaves_in_mid_body_takes_nothing(
    shop: CliServices, gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(request(gateway, sale_id)[:-10])
    raw_client.writer.close()
    await asyncio.sleep(0.6)
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 50}


async def test_more_connections_than_the_limit(gateway: TestGateway, sale_id: str) -> None:
    held = [await RawClient.to(gateway) for _ in range(8)]
    await eventually(lambda: _connections(gateway, 8))
    one_more = await RawClient.to(gateway)
    status, headers, body = await one_more.answer()
    assert (status, headers["retry-after"], orjson.loads(body)["code"]) == (503, "2", "overloaded")
    for raw_client in held[1:]:
        await raw_client.send(request(gateway, sale_id, key=str(id(raw_client))))
        assert (await raw_client.answer())[0] == 202
    held[0].writer.close()
    await eventually(lambda: _connections(gateway, 7))
    again = await RawClient.to(gateway)
    await again.send(request(gateway, sale_id, key="again"))
    assert (await again.answer())[0] == 202
    for raw_client in [*held, one_more, again]:
        raw_client.writer.close()


async def _connections(gateway: TestGateway, count: int) -> bool:
    return gateway.connections.open_count == count


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/sales HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
        (
            b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /v1/sales HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 9_000 + b"\r\n\r\n", 431),
        (b"GET /v1/sales HTTP/1.1\r\nHost: x\r\n" + b"X-A: y\r\n" * 40 + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_what_is_not_valid_http(gateway: TestGateway, raw_client: RawClient, data: bytes, status: int) -> None:
    await raw_client.send(data)
    given, headers, body = await raw_client.answer()
    assert given == status
    assert headers["content-type"] == "application/problem+json"
    assert orjson.loads(body)["status"] == status
    assert b"Traceback" not in body
    assert await raw_client.closed()


async def test_expectations(gateway: TestGateway, raw_client: RawClient, sale_id: str) -> None:
    data = request(gateway, sale_id, extra="Expect: 100-continue\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    await raw_client.send(head + b"\r\n\r\n")
    assert (await raw_client.answer())[0] == 100
    await raw_client.send(body)
    assert (await raw_client.answer())[0] == 202
    await raw_client.send(request(gateway, sale_id, key="other", extra="Expect: the-impossible\r\n"))
    status, headers, _ = await raw_client.answer()
    assert (status, headers["content-type"]) == (417, "application/problem+json")


async def test_a_body_too_large_is_refused_by_its_announced_length(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    head = request(gateway, sale_id).partition(b"Content-Length")[0]
    await raw_client.send(head + b"Content-Length: 999999999\r\n\r\n")
    status, _, body = await raw_client.answer()
    assert (status, orjson.loads(body)["code"]) == (413, "body_too_large")
    assert await raw_client.closed()
