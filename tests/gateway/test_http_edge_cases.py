"""HTTP before there is a request: slow, split, too large, or not HTTP at all."""

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
    async with open_gateway(make_settings(limits=LIMITS)) as test_gateway:
        yield test_gateway


class RawClient:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, gateway: TestGateway) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", gateway.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_response(self) -> tuple[int, dict[str, str], bytes]:
        """Read the next response."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode()
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        """Return True if the gateway closes the connection without sending more."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20) == b""
        except ConnectionError:
            return True


@pytest.fixture
async def raw_client(gateway: TestGateway) -> AsyncIterator[RawClient]:
    client = await RawClient.connect(gateway)
    yield client
    client.writer.close()


def build_request(gateway: TestGateway, sale_id: str, *, key: str = "k", extra: str = "") -> bytes:
    """Build a valid order request."""
    body = orjson.dumps(order_body(sale_id, ("a", 1)))
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(gateway.settings)}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


async def test_pipelined_orders_are_answered_in_sequence(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(b"".join(build_request(gateway, sale_id, key=f"k{n}") for n in range(5)))
    answers = [await raw_client.read_response() for _ in range(5)]
    assert [status for status, _, _ in answers] == [202] * 5
    assert len({body for _, _, body in answers}) == 5


async def test_order_sent_byte_by_byte_is_accepted(gateway: TestGateway, raw_client: RawClient, sale_id: str) -> None:
    for byte in build_request(gateway, sale_id):
        await raw_client.send(bytes([byte]))
    assert (await raw_client.read_response())[0] == 202


async def test_head_arriving_slowly_closes_connection(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(b"POST /v1/orders HTTP/1.1\r\nHost: x\r\n")
    started = asyncio.get_running_loop().time()

    async def dribble() -> None:
        for _ in range(200):
            await raw_client.send(b"X-A: b\r\n")
            await asyncio.sleep(0.05)

    dribbling = asyncio.create_task(dribble())
    assert await raw_client.is_closed()
    assert asyncio.get_running_loop().time() - started < 3
    dribbling.cancel()


async def test_silent_connection_is_closed(gateway: TestGateway, raw_client: RawClient) -> None:
    assert await raw_client.is_closed()


async def test_idle_connection_is_closed_after_response(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(build_request(gateway, sale_id))
    assert (await raw_client.read_response())[0] == 202
    assert await raw_client.is_closed()


async def test_body_arriving_slowly_gets_408(
    shop: CliServices, gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    data = build_request(gateway, sale_id)
    await raw_client.send(data[:-10])
    status, headers, body = await raw_client.read_response()
    assert (status, headers["content-type"]) == (408, "application/problem+json")
    assert orjson.loads(body)["code"] == "request_timeout"
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 50}


async def test_client_closing_within_body_takes_no_stock(
    shop: CliServices, gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    await raw_client.send(build_request(gateway, sale_id)[:-10])
    raw_client.writer.close()
    await asyncio.sleep(0.6)
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 50}


async def test_connection_over_limit_is_refused_until_one_closes(gateway: TestGateway, sale_id: str) -> None:
    clients = [await RawClient.connect(gateway) for _ in range(8)]
    await eventually(lambda: _has_connections(gateway, 8))
    refused = await RawClient.connect(gateway)
    status, headers, body = await refused.read_response()
    assert (status, headers["retry-after"], orjson.loads(body)["code"]) == (503, "2", "overloaded")
    for raw_client in clients[1:]:
        await raw_client.send(build_request(gateway, sale_id, key=str(id(raw_client))))
        assert (await raw_client.read_response())[0] == 202
    clients[0].writer.close()
    await eventually(lambda: _has_connections(gateway, 7))
    last = await RawClient.connect(gateway)
    await last.send(build_request(gateway, sale_id, key="again"))
    assert (await last.read_response())[0] == 202
    for raw_client in [*clients, refused, last]:
        raw_client.writer.close()


async def _has_connections(gateway: TestGateway, count: int) -> bool:
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
async def test_invalid_http_gets_problem_and_close(
    gateway: TestGateway, raw_client: RawClient, data: bytes, status: int
) -> None:
    await raw_client.send(data)
    answered, headers, body = await raw_client.read_response()
    assert answered == status
    assert headers["content-type"] == "application/problem+json"
    assert orjson.loads(body)["status"] == status
    assert b"Traceback" not in body
    assert await raw_client.is_closed()


async def test_expect_100_continue_is_met_and_others_refused(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    data = build_request(gateway, sale_id, extra="Expect: 100-continue\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    await raw_client.send(head + b"\r\n\r\n")
    assert (await raw_client.read_response())[0] == 100
    await raw_client.send(body)
    assert (await raw_client.read_response())[0] == 202
    await raw_client.send(build_request(gateway, sale_id, key="other", extra="Expect: the-impossible\r\n"))
    status, headers, _ = await raw_client.read_response()
    assert (status, headers["content-type"]) == (417, "application/problem+json")


async def test_content_length_over_limit_is_refused_before_body(
    gateway: TestGateway, raw_client: RawClient, sale_id: str
) -> None:
    head = build_request(gateway, sale_id).partition(b"Content-Length")[0]
    await raw_client.send(head + b"Content-Length: 999999999\r\n\r\n")
    status, _, body = await raw_client.read_response()
    assert (status, orjson.loads(body)["code"]) == (413, "body_too_large")
    assert await raw_client.is_closed()
