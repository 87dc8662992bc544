"""Programs read what commands list: JSON with all values, and tables of which a pipe cuts nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.support.processes import Processes
from tests.support.sales import make_sale
from tests.support.shipping_shop import ShippingShop
from workers.registry import NAMES

QUERIES = {"list", "show", "tables", "unplanned", "worklists", "choose", "explain", "product", "links", "audit", "plan"}
ALWAYS_JSON = {"dead-letters show", "aftersales policy show", "deadlines calendar show", "deadlines policy show"}


def iterate_commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the words and the definition of each command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from iterate_commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_command_that_lists_has_json() -> None:
    commands = dict(iterate_commands(typer.main.get_command(app)))
    queries = {words for words in commands if words.split()[-1] in QUERIES} - ALWAYS_JSON
    assert len(queries) > 20
    assert [words for words in queries if not any(param.name == "json" for param in commands[words].params)] == []


@pytest.mark.parametrize(("words", "expected"), [(["--version"], ["floodgate "]), (["--help"], NAMES)])
def test_global_options_print_version_and_workers(words: list[str], expected: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert [text for text in expected if text not in result.output] == []


def test_worker_help_names_all_workers() -> None:
    result = CliRunner().invoke(app, ["worker", "--help"])
    description = result.output.split("Arguments:")[0]
    assert [name for name in NAMES if name not in description] == []


async def invoke(settings: Settings, *words: str | UUID) -> str:
    """Run a command of a shop whose output is no terminal, and return what it prints."""
    environment = Processes(settings, settings.data_dir).environment()
    result = await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


async def test_lists_print_whole_values_as_json_and_in_tables(
    shop: CliServices, settings: Settings, ship: ShippingShop, sale_prefix: str
) -> None:
    reason = "a reason that is longer than any terminal is wide, " * 8
    _, [shipment] = await ship.add_booked_order(("a", 1, 0))
    async with shop.db.transaction() as connection:
        await connection.execute("UPDATE jobs SET parked = true, last_error = $1", reason)
    sale_ids = [f"{sale_prefix}-{'long-id-' * 5}{number}" for number in range(3)]
    for sale_id in sale_ids:
        await make_sale(shop, sale_id, {f"{'SKU-' * 15}a": (123_456_789, 10**11 + 1, 1_000_000)})

    async def read(*words: str | UUID) -> tuple[Any, str]:
        return json.loads(await invoke(settings, *words, "--json")), await invoke(settings, *words)

    page, table = await read("shipment", "list", "--worklist", "parked")
    item = page["items"][0]
    assert (item["shipment"]["shipment_id"], item["reason"]) == (str(shipment.shipment_id), reason)
    assert str(shipment.shipment_id) in table
    assert reason.strip() in table
    sales, table = await read("sale", "list")
    assert set(sale_ids) <= {sale["sale_id"] for sale in sales}
    assert all(sale_id in table for sale_id in sale_ids)
    items, table = await read("sale", "show", sale_ids[0], "--items")
    assert (items[0]["price"], items[0]["free"]) == (10**11 + 1, 123_456_789)
    assert f"{'SKU-' * 15}a" in table
    assert "123456789" in table


async def test_every_query_prints_json(shop: CliServices, settings: Settings, ship: ShippingShop, sale_id: str) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 1, 0))
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    lists: list[tuple[str | UUID, ...]] = [
        ("audit",),
        ("catalog", "show", "a"),
        ("sale", "show", sale_id),
        ("order", "show", order_id),
        ("order", "unplanned"),
        ("payment", "show", order_id),
        ("store-credit", "show", "user"),
        ("jobs", "list"),
        ("dead-letters", "list"),
        ("rates", "tables"),
        ("rates", "show"),
        ("rates", "choose", "--to", "CN/Shanghai", "--weight", "1kg"),
        ("rates", "explain", shipment.shipment_id),
        ("warehouse", "show"),
        ("warehouse", "product", "a"),
        ("vehicle", "list"),
        ("route", "show", "--date", "2026-11-11"),
        ("route", "links", "--date", "2026-11-11"),
        ("shipment", "list", "--order", order_id),
        ("shipment", "worklists"),
        ("shipment", "show", shipment.shipment_id),
    ]
    for words in lists:
        assert isinstance(json.loads(await invoke(settings, *words, "--json")), list | dict), words
