"""The `floodgate` command as an operator has it: what it says when something is in the way."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import lua
from commerce.catalog.model import ProductInput
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from commerce.orders.model import OrderDetails
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, reservation, reserve

FLOODGATE = Path(sys.executable).with_name("floodgate")
Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def floodgate(settings: Settings, sale_prefix: str, tmp_path: Path) -> Command:
    """Runs a command in this test's shop; gives its status and all that it prints."""
    environment = {**os.environ, **Processes(settings, tmp_path).environment()}

    async def run(*arguments: str, **more: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE),
            *arguments,
            env={**environment, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, said.decode()

    return run


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("gateway", "FLOODGATE_HTTP__PORT"),
        ("gateway", "FLOODGATE_HTTP__ADMIN_PORT"),
        ("worker observer", "FLOODGATE_OBSERVER__WORKER_METRICS_PORT"),
    ],
)
async def test_a_port_that_is_taken(floodgate: Command, command: str, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = str(other.getsockname()[1])
        status, said = await floodgate(*command.split(), **{setting: port})
    assert status == 1
    assert "database" not in said
    assert f":{port}: Address already in use" in said
    assert f"set {setting}" in said


async def test_a_sale_that_redis_has_lost(floodgate: Command, shop: CliServices, sale_id: str, tmp_path: Path) -> None:
    """Nobody mends that by himself, and the command must not say so."""
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    status, said = await floodgate("sale", "pause", sale_id)
    assert (status, said) == (0, f"{sale_id} is paused\n")
    status, said = await floodgate("sale", "open", sale_id, REDIS_URL=f"unix://{tmp_path}/nobody")
    assert status == 0
    assert "the sale keeper will do it" in said
    await shop.redis.delete(keys.meta)
    for step, state in (("open", "open"), ("pause", "paused"), ("close", "closed")):
        status, said = await floodgate("sale", step, sale_id)
        assert status == 0
        assert f"{sale_id} is {state}" in said
        assert f"floodgate rebuild {sale_id}" in said
        assert "keeper" not in said
    assert "not loaded" in (await floodgate("sale", "show", sale_id))[1]
    assert (await floodgate("rebuild", sale_id))[0] == 0
    assert "not loaded" not in (await floodgate("sale", "show", sale_id))[1]
    assert (await floodgate("sale", "close", sale_id))[1] == f"{sale_id} is closed\n"


async def test_terms_that_are_not_given_stay(floodgate: Command, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, 3)})

    async def terms(*arguments: str) -> tuple[int, int | None]:
        status, said = await floodgate("sale", "terms", sale_id, "a", *arguments)
        assert status == 0, said
        item = await shop.sales.get_item(sale_id, "a")
        return item.price, item.limit_per_user

    assert await terms("--price", "1.50") == (150, 3)
    assert await terms("--limit", "2") == (150, 2)
    assert await terms("--price", "1.20", "--limit", "4") == (120, 4)
    assert await terms("--no-limit") == (120, None)
    assert (await floodgate("sale", "terms", sale_id, "a"))[0] == 2
    assert (await floodgate("sale", "terms", sale_id, "a", "--limit", "2", "--no-limit"))[0] == 2
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_a_product_joins_an_open_sale(
    floodgate: Command, shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.catalog.put("new", ProductInput("new", 70, "CNY"))
    file = tmp_path / "items.csv"
    file.write_text("sku,units,price,limit_per_user\nnew,3,0.60,2\n")
    status, said = await floodgate("sale", "items", sale_id, str(file))
    assert status == 1
    assert "with 0 units" in said
    file.write_text("sku,units,price,limit_per_user\nnew,0,0.60,2\n")
    status, said = await floodgate("sale", "items", sale_id, str(file))
    assert status == 0, said
    assert f"floodgate sale change-stock {sale_id}" in said
    item = await shop.sales.get_item(sale_id, "new")
    assert (item.price, item.limit_per_user) == (60, 2)
    assert (await floodgate("sale", "restock", sale_id, "new", "3", "--reason", "arrived"))[0] == 0
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 5, "new": 3}
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_an_order_is_shown_and_cancelled(
    floodgate: Command, shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    made = reservation(shop.ids.new, sale_id, {"a": 2})
    await reserve(shop.redis, keys, made)
    order_id = str(made.order_id)
    status, said = await floodgate("order", "show", order_id)
    assert (status, "user" in said, "accepted" in said) == (0, True, True)
    status, said = await floodgate("order", "cancel", order_id, "--reason", "a\nb", "--yes")
    assert (status, "--reason" in said) == (1, True)
    async with run_workers(settings, "order_writer"):
        status, said = await floodgate("order", "cancel", order_id, "--reason", "sent twice", "--yes")
    assert status == 0, said
    assert "cancelled (by_staff)" in said
    found = await shop.orders.get_details(made.order_id, [sale_id])
    assert (found.events[-1].actor, found.events[-1].reason) == (f"cli {getpass.getuser()}", "sent twice")
    status, said = await floodgate("order", "show", order_id, "--json")
    assert msgspec.json.decode(said, type=OrderDetails) == found
    assert (await floodgate("order", "show", str(shop.ids.new())))[0] == 1


async def test_a_dead_letter_cannot_be_cancelled(
    floodgate: Command, shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """It says what to do instead."""
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    good = reservation(shop.ids.new, sale_id, {"a": 2})
    payload = encode_accepted(msgspec.structs.replace(decode_accepted(good.payload), currency="yuan"))
    await reserve(shop.redis, keys, msgspec.structs.replace(good, payload=payload))

    async def dead() -> bool:
        return bool((await shop.dead_letters.list_letters(None, 10)).items)

    async with run_workers(settings, "order_writer"):
        await eventually(dead)
    status, said = await floodgate("order", "cancel", str(good.order_id), "--reason", "sent twice", "--yes")
    assert status == 1
    assert "discard the dead letter" in said
