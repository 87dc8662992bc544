"""Commands of `floodgate` for operators: output, status and errors."""

from __future__ import annotations

import getpass
import socket
import sys
from pathlib import Path

import msgspec
import pytest

import lua
from commerce.catalog.model import VariantInput
from commerce.kernel.clock import from_ms
from commerce.kernel.stream_payload import (
    AcceptedDiscount,
    AcceptedLine,
    PriceParts,
    StreamedOrder,
    decode_accepted,
    encode_accepted,
)
from commerce.orders.model import OrderDetails
from commerce.orders.persistence import persist
from config.settings import Settings
from lua import EntryId, SaleKeys
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.gateway import run_workers
from tests.support.locust_runs import run_command
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, reservation, reserve

FLOODGATE = Path(sys.executable).with_name("floodgate")


@pytest.fixture
def floodgate(settings: Settings, sale_prefix: str, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("gateway", "FLOODGATE_HTTP__PORT"),
        ("gateway", "FLOODGATE_HTTP__ADMIN_PORT"),
        ("worker observer", "FLOODGATE_OBSERVER__WORKER_METRICS_PORT"),
    ],
)
async def test_command_with_port_in_use_names_the_setting(
    settings: Settings, sale_prefix: str, tmp_path: Path, command: str, setting: str
) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = str(other.getsockname()[1])
        environment = Processes(settings, tmp_path).environment() | {setting: port}
        status, output = await run_command([str(FLOODGATE), *command.split()], environment)
    assert status == 1
    assert "database" not in output
    assert f":{port}: Address already in use" in output
    assert f"set {setting}" in output


async def test_sale_lost_by_redis_warns_to_rebuild(
    floodgate: Command, shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    """No worker reloads a lost sale, so the output must not name sale_sync."""
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    status, output = await floodgate("sale", "pause", sale_id)
    assert (status, output) == (0, f"{sale_id} is paused\n")
    status, output = await floodgate("sale", "open", sale_id, REDIS_URL=f"unix://{tmp_path}/nobody")
    assert status == 0
    assert "the worker sale_sync brings it there" in output
    await shop.redis.delete(keys.meta)
    for step, state in (("open", "open"), ("pause", "paused"), ("close", "closed")):
        status, output = await floodgate("sale", step, sale_id)
        assert status == 0
        assert f"{sale_id} is {state}" in output
        assert f"floodgate rebuild {sale_id}" in output
        assert "sale_sync" not in output
    assert "not loaded" in (await floodgate("sale", "show", sale_id))[1]
    assert (await floodgate("rebuild", sale_id))[0] == 0
    assert "not loaded" not in (await floodgate("sale", "show", sale_id))[1]
    assert (await floodgate("sale", "close", sale_id))[1] == f"{sale_id} is closed\n"


async def test_sale_terms_left_out_stay_as_they_are(floodgate: Command, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, 3)})

    async def change_terms(*arguments: str) -> tuple[int, int | None]:
        status, output = await floodgate("sale", "change-item", sale_id, "a", *arguments)
        assert status == 0, output
        item = await shop.sales.get_item(sale_id, "a")
        return item.price, item.limit_per_user

    assert await change_terms("--price", "1.50") == (150, 3)
    assert await change_terms("--limit-per-user", "2") == (150, 2)
    assert await change_terms("--price", "1.20", "--limit-per-user", "4") == (120, 4)
    assert await change_terms("--no-limit") == (120, None)
    assert (await floodgate("sale", "change-item", sale_id, "a"))[0] == 2
    assert (await floodgate("sale", "change-item", sale_id, "a", "--limit-per-user", "2", "--no-limit"))[0] == 2
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_sale_items_on_open_sale_adds_product_without_stock(
    floodgate: Command, shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.catalog.put("new", VariantInput("new", 70, "CNY"))
    file = tmp_path / "items.csv"
    file.write_text("sku,units,price,limit_per_user\nnew,3,0.60,2\n")
    status, output = await floodgate("sale", "items", sale_id, str(file))
    assert status == 1
    assert "with 0 units" in output
    file.write_text("sku,units,price,limit_per_user\nnew,0,0.60,2\n")
    status, output = await floodgate("sale", "items", sale_id, str(file))
    assert status == 0, output
    assert f"floodgate sale change-stock {sale_id}" in output
    item = await shop.sales.get_item(sale_id, "new")
    assert (item.price, item.limit_per_user) == (60, 2)
    assert (await floodgate("sale", "change-stock", sale_id, "new", "3", "--reason", "arrived"))[0] == 0
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 5, "new": 3}
    for removal in (("-1", "--reason", "broken"), ("--reason", "broken", "-1"), ("--reason", "broken", "--", "-1")):
        assert (await floodgate("sale", "change-stock", sale_id, "new", *removal))[0] == 0, removal
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 5, "new": 0}
    status, output = await floodgate("sale", "change-stock", sale_id, "new", "-1", "--reson", "broken")
    assert (status, "Missing option '--reason'" in output) == (2, True)
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_order_commands_show_and_cancel_an_order(
    floodgate: Command, shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 2})
    await reserve(shop.redis, keys, order)
    order_id = str(order.order_id)
    status, output = await floodgate("order", "show", order_id)
    assert (status, "user" in output, "accepted" in output) == (0, True, True)
    status, output = await floodgate("order", "cancel", order_id, "--reason", "a\nb", "--yes")
    assert (status, "--reason" in output) == (1, True)
    async with run_workers(settings, "order_writer"):
        status, output = await floodgate("order", "cancel", order_id, "--reason", "sent twice", "--yes")
    assert status == 0, output
    assert "cancelled (by_staff)" in output
    details = await shop.orders.get_details(order.order_id, [sale_id])
    assert (details.events[-1].actor, details.events[-1].reason) == (f"cli {getpass.getuser()}", "sent twice")
    status, output = await floodgate("order", "show", order_id, "--json")
    assert msgspec.json.decode(output, type=OrderDetails) == details
    assert (await floodgate("order", "show", str(shop.ids.new())))[0] == 1


async def test_shown_order_explains_its_price(floodgate: Command, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 10_000, None)})
    placed = reservation(shop.ids.new, sale_id, {"a": 2}, price=10_000)
    parts = PriceParts([AcceptedDiscount("less-40", "100 less 40", 4_000)], [800], 300, ["TEN", "@first"])
    order = msgspec.structs.replace(
        decode_accepted(placed.payload),
        lines=[AcceptedLine(0, 0, "a", 2, 10_000, 12_000, 4_000)],
        total_minor=17_100,
        parts=parts,
    )
    async with shop.db.transaction() as connection:
        await persist(connection, [StreamedOrder(order, EntryId(1, 0), encode_accepted(order))], from_ms(1))
    status, output = await floodgate("order", "show", str(placed.order_id))
    assert status == 0, output
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]
    assert rows[4:8] == [["payment", "unpaid"], ["delivery", "unshipped"], ["returns", "none"], ["total", "171.00 CNY"]]
    assert rows[9:14] == [
        ["line 0", "2 a: 160.00 CNY"],
        ["freight to address 0", "8.00 CNY"],
        ["cash on delivery", "3.00 CNY"],
        ["discount of lines", "40.00 CNY by less-40: 100 less 40"],
        ["coupon", "TEN"],
    ]


async def test_order_cancel_on_dead_letter_is_refused_with_advice(
    floodgate: Command, shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 2})
    payload = encode_accepted(msgspec.structs.replace(decode_accepted(order.payload), currency="yuan"))
    await reserve(shop.redis, keys, msgspec.structs.replace(order, payload=payload))

    async def is_dead_letter() -> bool:
        return bool((await shop.dead_letters.list_letters(None, 10)).items)

    async with run_workers(settings, "order_writer"):
        await eventually(is_dead_letter)
    status, output = await floodgate("order", "cancel", str(order.order_id), "--reason", "sent twice", "--yes")
    assert status == 1
    assert "discard the dead letter" in output
