"""Simulated carriers in a process of their own, which is killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from ops.sandbox.keys import read_keys
from tests.ops.carrier_kit import ORDERS, Kuaidi100Client, SfExpressClient, WebhookReceiver
from tests.ops.test_sandbox_process import run_sandbox
from tests.support.processes import free_port
from tests.support.sales import eventually


async def test_killed_sandbox_loses_no_shipment(tmp_path: Path) -> None:
    """Shipments are booked before the kill and reported after it: the shop is unreachable before."""
    port, shop_port = free_port(), free_port()
    base, shop_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{shop_port}"
    options = ("--shop-url", shop_url, "--time-factor", "360000", "--max-retry-wait-s", "0.05")
    async with aiohttp.ClientSession() as session:

        async def fetch_totals(carrier: str) -> dict[str, Any]:
            async with session.get(f"{base}/totals") as response:
                return dict((await response.json())[carrier])

        async def has_totals(carrier: str, expected: dict[str, int]) -> bool:
            totals = await fetch_totals(carrier)
            return all(totals[name] == count for name, count in expected.items())

        async with run_sandbox(tmp_path, port, *options) as running:
            ids = read_keys(tmp_path / "keys").ids
            for name in ("sf_express", "kuaidi100"):
                async with session.put(f"{base}/faults/{name}", json={"webhook_delay_ms": 3_000}) as response:
                    assert response.status == 200
            tracking_no = await SfExpressClient(session, base, ids).book(ORDERS[0])
            webhook_url = f"{shop_url}/v1/webhooks/carriers/kuaidi100"
            assert (await Kuaidi100Client(session, base, webhook_url, ids).subscribe("ZT0001"))["result"]
            await running.kill()
        async with WebhookReceiver().listen(shop_port) as receiver, run_sandbox(tmp_path, port, *options):
            for name in ("sf_express", "kuaidi100"):
                await eventually(partial(has_totals, name, {"delivered": 1, "open_webhooks": 0}))
            routes = await SfExpressClient(session, base, ids).fetch_routes(tracking_no)
            sf_webhooks = [webhook for webhook in receiver.received if webhook.carrier == "sf_express"]
            assert sorted(webhook.route["acceptTime"] for webhook in sf_webhooks) == [
                route["acceptTime"] for route in routes
            ]
            assert {webhook.key for webhook in sf_webhooks} == {ids.sf_express_webhook_key}
            kuaidi100_webhooks = [webhook for webhook in receiver.received if webhook.carrier == "kuaidi100"]
            assert "shutdown" in [webhook.param["status"] for webhook in kuaidi100_webhooks]
    assert ids.sf_express_webhook_key not in (tmp_path / "log").read_text()
