"""The sandbox as a program of its own brings parcels, kill or no kill."""

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


async def test_a_kill_loses_no_parcel(tmp_path: Path) -> None:
    """Booked before it, pushed after it: the shop is not there before the kill."""
    port, shop_port = free_port(), free_port()
    base, shop = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{shop_port}"
    more = ("--shop", shop, "--speed", "360000", "--longest-wait-s", "0.05")
    async with aiohttp.ClientSession() as session:

        async def books(carrier: str) -> dict[str, Any]:
            async with session.get(f"{base}/books") as answer:
                return dict((await answer.json())[carrier])

        async def told(carrier: str, wanted: dict[str, int]) -> bool:
            found = await books(carrier)
            return all(found[name] == count for name, count in wanted.items())

        async with run_sandbox(tmp_path, port, *more) as running:
            ids = read_keys(tmp_path / "keys").ids
            for name in ("sf_express", "kuaidi100"):
                async with session.put(f"{base}/switches/{name}", json={"push_ms": 3_000}) as answer:
                    assert answer.status == 200
            number = await SfExpressClient(session, base, ids).book(ORDERS[0])
            callback = f"{shop}/v1/webhooks/carriers/kuaidi100"
            assert (await Kuaidi100Client(session, base, callback, ids).follow("ZT0001"))["result"]
            await running.kill()
        async with WebhookReceiver().listening(shop_port) as receiver, run_sandbox(tmp_path, port, *more):
            for name in ("sf_express", "kuaidi100"):
                await eventually(partial(told, name, {"delivered": 1, "open_pushes": 0}))
            routes = await SfExpressClient(session, base, ids).tracked(number)
            pushed = [push for push in receiver.got if push.carrier == "sf_express"]
            assert sorted(push.route["acceptTime"] for push in pushed) == [one["acceptTime"] for one in routes]
            assert {push.key for push in pushed} == {ids.sf_express_webhook_key}
            assert "shutdown" in [push.told["status"] for push in receiver.got if push.carrier == "kuaidi100"]
    assert ids.sf_express_webhook_key not in (tmp_path / "log").read_text()
