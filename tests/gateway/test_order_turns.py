"""Orders that wait for a turn in a later iteration of the event loop are answered, however they came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from unittest.mock import Mock

import pytest

from config.settings import Settings
from gateway import metrics
from gateway.fast_path import FastPathConnection
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect, tracked_connections
from tests.support.gateway import TestGateway, open_gateway
from tests.support.sales import eventually, make_sale


@pytest.fixture
async def gateway(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> AsyncIterator[TestGateway]:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_gateway(make_settings()) as test_gateway:
        yield test_gateway


@pytest.fixture
async def client(gateway: TestGateway, sale_id: str) -> AsyncIterator[socket.socket]:
    """A client that has ordered once."""
    client = await connect(gateway)
    await asyncio.get_running_loop().sock_sendall(client, build_order_request(gateway, sale_id, 1, key="first"))
    assert (await _read_status(client)) == 202
    yield client
    client.close()


async def _read_status(client: socket.socket) -> int:
    async with asyncio.timeout(10):
        head = await asyncio.get_running_loop().sock_recv(client, 65_536)
    assert head.startswith(b"HTTP/1.1 "), "closed without an answer"
    return int(head[9:12])


def _take_all_turns(gateway: TestGateway) -> FastPathConnection:
    """Let the present iteration take no more orders. Returns the only connection."""
    gateway.services.order_turns.left = 0
    [connection] = tracked_connections(gateway)
    assert isinstance(connection, FastPathConnection)
    return connection


@pytest.mark.parametrize("parts", ["whole", "head and body", "with another one"])
async def test_order_waits_for_its_turn(gateway: TestGateway, client: socket.socket, sale_id: str, parts: str) -> None:
    connection, admission = _take_all_turns(gateway), gateway.services.admission
    request = build_order_request(gateway, sale_id, 2, key="second")
    body_at = request.index(b"\r\n\r\n") + 4
    for data in {
        "whole": [request],
        "head and body": [request[:body_at], request[body_at:]],
        "with another one": [request, build_order_request(gateway, sale_id, 3, key="third")],
    }[parts]:
        connection.data_received(data)
    assert admission.deferred == 1
    assert not gateway.services.intake._queues[sale_id].waiting
    turn_at = perf_counter()
    gateway.services.order_turns._begin()
    assert admission.deferred == 0
    assert connection._started < turn_at  # its duration includes the wait
    assert await _read_status(client) == 202


async def test_connection_of_a_waiting_order_is_not_late(
    gateway: TestGateway, client: socket.socket, sale_id: str
) -> None:
    """The client was silent for long before, but the order has arrived."""
    connection, now = _take_all_turns(gateway), asyncio.get_running_loop().time()
    connection._since = now - connection._limits.request_head_timeout_s - 1
    connection.data_received(build_order_request(gateway, sale_id, 2, key="second"))
    connection.enforce_timeouts(now)
    gateway.services.order_turns._begin()
    assert await _read_status(client) == 202


async def test_gateway_that_ends_answers_waiting_orders(
    gateway: TestGateway, client: socket.socket, sale_id: str
) -> None:
    connection = _take_all_turns(gateway)
    connection.data_received(build_order_request(gateway, sale_id, 2, key="second"))
    ending = asyncio.create_task(gateway.connections.close_all(10))
    assert await _read_status(client) == 202
    await ending
    assert gateway.connections.open_count == 0


async def test_refusal_of_a_ticket_that_nobody_can_verify(
    gateway: TestGateway, client: socket.socket, sale_id: str
) -> None:
    """A gateway without a key of tickets refuses for overload as any other."""
    gateway.services.room_status._tickets = None
    gateway.services.room_status.guarded = {"room": Mock(expired=0, served=5)}
    gateway.services.admission.report_backlog(10**9, 0, 0)
    request = build_order_request(gateway, sale_id, 2, key="second")
    ticket = b"Room-Ticket: r1.1.99999999999.aaaaaaaaaaaaaaaaaaaaaa\r\n"
    await asyncio.get_running_loop().sock_sendall(client, request.replace(b"Host: x\r\n", b"Host: x\r\n" + ticket))
    assert await _read_status(client) == 503


async def test_orders_that_wait_for_a_turn_are_counted(
    gateway: TestGateway, client: socket.socket, sale_id: str
) -> None:
    connection = _take_all_turns(gateway)
    connection.data_received(build_order_request(gateway, sale_id, 2, key="second"))

    async def is_counted() -> bool:
        return metrics.WAITING.collect()[0].samples[0].value == 1

    await eventually(is_counted)
    gateway.services.order_turns._begin()
    assert await _read_status(client) == 202
