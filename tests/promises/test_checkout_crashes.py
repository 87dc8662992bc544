"""P2, P3: gateways are killed during checkouts, and repeats have the same orders, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.gateway.test_checkout_http import CART, CHECKOUT, checkout_body
from tests.support.gateway import bearer
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually, make_sale

TOTAL = 2 * 100 + 100 + 3 * 100 + 9 * 255


def create_body(sales: list[str]) -> dict[str, Any]:
    """Build a checkout to two addresses, of which the first order is split over both and has two payments."""
    split = [{"address": 0, "quantity": 1}, {"address": 1, "quantity": 1}]
    payments = [{"method": "alipay", "amount": 150}, {"method": "balance", "amount": 50}]
    return checkout_body(
        *(4, TOTAL),
        ship_to=[ADDRESS, {**ADDRESS, "city": "Ningbo"}],
        sales=[
            {"sale_id": sales[0], "lines": [{"sku": "a", "ship_to": split}], "payments": payments},
            {"sale_id": sales[1], "lines": [{"sku": "a", "ship_to": 1}]},
        ],
    )


async def fill_cart(processes: Processes, sales: list[str]) -> None:
    """Put lines of three sales into the cart; of the last one fewer units are free."""
    async with aiohttp.ClientSession(headers=bearer(processes.settings)) as client:
        for sale_id, sku, quantity in (
            (sales[0], "a", 2),
            (sales[1], "a", 1),
            (sales[2], "a", 3),
            (sales[2], "b", 9),
        ):
            url = f"{processes.base}{CART}/lines/{sale_id}/{sku}"
            async with client.put(url, json={"quantity": quantity}) as answer:
                assert answer.status == 200, await answer.text()


async def check_out(processes: Processes, body: dict[str, Any]) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers=bearer(processes.settings)) as client,
        client.post(f"{processes.base}{CHECKOUT}", json=body) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def check_out_until_crash(processes: Processes, request: dict[str, Any]) -> None:
    """Repeat the request until the lease of the gateway before has ended, and this one crashes."""
    while True:
        status, body = await check_out(processes, request)
        assert (status, body["code"]) == (409, "checkout_in_progress"), body


@pytest.mark.parametrize(
    "failpoints",
    [
        ["checkout.after_begin"],
        ["checkout.after_order"],
        ["checkout.after_order:3"],
        ["checkout.before_end"],
        ["intake.after_reserve", "checkout.after_order:2", "checkout.before_end"],
    ],
    ids="-".join,
)
async def test_gateway_killed_during_checkout_has_the_same_orders_after_repeats(
    make_settings: Callable[..., Settings],
    shop: CliServices,
    sale_prefix: str,
    tmp_path: Path,
    failpoints: list[str],
) -> None:
    sales = [f"{sale_prefix}-{number}" for number in range(3)]
    request = create_body(sales)
    for sale_id in sales:
        await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (3, 255, None)})
    async with run_processes(make_settings(limits={"checkout_lease_s": 0.5}), tmp_path) as processes:
        await processes.worker("order_writer")
        for number, failpoint in enumerate(failpoints):
            killed = await processes.gateway(crash_at=failpoint)
            if number == 0:
                await fill_cart(processes, sales)
            with pytest.raises(aiohttp.ClientError):
                await check_out_until_crash(processes, request)
            assert await wait_for_exit(killed) == -9
        await processes.gateway()
        answers: list[tuple[int, Any]] = []

        async def is_done() -> bool:
            answers.append(await check_out(processes, request))
            return answers[-1][0] == 200

        await eventually(is_done)
        assert {body["code"] for status, body in answers[:-1]} <= {"checkout_in_progress"}
        assert await check_out(processes, request) == answers[-1]
        orders = {order["sale_id"]: order for order in answers[-1][1]["orders"]}
        outcomes = [orders[sale_id]["outcome"] for sale_id in sales]
        assert outcomes == ["placed", "placed", "refused"]
        lines = [(sale["sale_id"], line["sku"]) for sale in answers[-1][1]["cart"]["sales"] for line in sale["lines"]]
        assert lines == [(sales[2], "a"), (sales[2], "b")]
        for sale_id in sales:
            await eventually(lambda sale_id=sale_id: _is_stored(shop, sale_id))
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT sale_id, order_id::text FROM orders ORDER BY sale_id")
        counts = await connection.fetchrow(
            "SELECT count(*), count(*) FILTER (WHERE state = 'done'), sum(cart_version) FROM checkouts"
        )
        parts = await connection.fetch(
            "SELECT sale_id, sku, address_no, quantity, jsonb_array_length(ship_to) AS addresses, "
            "jsonb_array_length(payment_plan) AS payments "
            "FROM orders JOIN order_lines USING (order_id) ORDER BY sale_id, address_no"
        )
    assert [tuple(row) for row in parts] == [
        (sales[0], "a", 0, 1, 2, 2),
        (sales[0], "a", 1, 1, 2, 2),
        (sales[1], "a", 0, 1, 1, 0),
    ]
    assert [tuple(row) for row in rows] == [(sale_id, orders[sale_id]["order_id"]) for sale_id in sales[:2]]
    assert tuple(counts) == (1, 1, 4)
    for sale_id in sales:
        assert (await shop.audit.audit_sale(sale_id)).clean


async def _is_stored(shop: CliServices, sale_id: str) -> bool:
    return (await lua.read_backlog(shop.redis, SaleKeys(sale_id))).orders == 0
