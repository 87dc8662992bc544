"""Clients that disconnect early cause no warnings in the log and no errors in the metrics."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import pytest
from prometheus_client import REGISTRY

from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, bearer
from tests.support.sales import eventually, make_sale, order_body

STREAM_PATH = "/v1/orders/{order_id}/events"


def count_requests(gateway: TestGateway, route: str) -> dict[str, float]:
    """Count the requests of a route by status."""
    gateway.services.metrics_buffer.flush()
    return {
        sample.labels["status"]: sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "floodgate_http_requests_total" and sample.labels["route"] == route
    }


@pytest.fixture
async def keys(shop: CliServices, gateway: TestGateway, sale_id: str) -> SaleKeys:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await gateway.services.snapshots.refresh()
    return keys


async def test_stream_closed_by_client_logs_and_counts_no_error(
    gateway: TestGateway,
    sale_id: str,
    keys: SaleKeys,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.server_sent_events._HEARTBEAT_S", 0.05)
    before = count_requests(gateway, STREAM_PATH)
    order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
    url = f"{gateway.base}/v1/orders/{order_id}/events"
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get(url, headers=bearer(gateway.settings)) as stream,
    ):
        await stream.content.readline()
        stream.close()

    async def ended() -> bool:
        return count_requests(gateway, STREAM_PATH).get("200", 0) > before.get("200", 0)

    await eventually(ended)
    assert count_requests(gateway, STREAM_PATH).get("503", 0) == before.get("503", 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_body_cut_by_client_logs_and_counts_no_error(
    gateway: TestGateway, keys: SaleKeys, caplog: pytest.LogCaptureFixture
) -> None:
    path = "/v1/orders"
    before = count_requests(gateway, path)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer(gateway.settings)['Authorization']}\r\n"
        "Idempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    await reader.readuntil(b"100 Continue\r\n\r\n")
    writer.write(b'{"sal')
    await writer.drain()
    writer.close()

    async def ended() -> bool:
        return count_requests(gateway, path).get("400", 0) > before.get("400", 0)

    await eventually(ended)
    assert count_requests(gateway, path).get("503", 0) == before.get("503", 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
