"""`floodgate aftersales` as staff have it: the same as over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def test_staff_decide_on_cases_by_command(cases: CaseShop, floodgate: Command) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    kept, declined = await cases.request(order_id, 2), await cases.request(order_id, 1)
    status, text = await floodgate("aftersales", "list", "--json")
    assert (status, [case["case_id"] for case in json.loads(text)]) == (0, [str(kept), str(declined)])
    status, text = await floodgate("aftersales", "approve", kept, "--reason", "keep it", "--amount", 150, "--keep")
    assert (status, "approved, version 2" in text, "1.50 CNY" in text) == (0, True, True), text
    status, text = await floodgate("aftersales", "resolve", kept, "--reason", "as agreed", "--version", 1)
    assert (status, "read it again" in text) == (1, True), text
    assert (await floodgate("aftersales", "resolve", kept, "--reason", "as said"))[0] == 0
    assert await cases.refunded(order_id) == 150
    assert (await floodgate("aftersales", "decline", declined, "--reason", "worn"))[0] == 0
    assert (await floodgate("aftersales", "reopen", declined, "--reason", "not worn"))[0] == 0
    status, text = await floodgate("aftersales", "offer", declined, "--reason", "keep it", "--amount", 10)
    assert (status, "requested, version 4" in text) == (0, True), text
    assert (await floodgate("aftersales", "cancel", declined, "--reason", "as asked for"))[0] == 0
    status, text = await floodgate("aftersales", "show", declined)
    assert (status, "cancelled" in text, "as asked for" in text) == (0, True, True)
    status, text = await floodgate("aftersales", "list", "--view", "all")
    assert (status, str(kept) in text) == (0, True)


async def test_policies_are_set_by_command(cases: CaseShop, floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"skus": ["a"], "return_days": null, "excluded_because": "made to order"}')
    assert (await floodgate("aftersales", "policy", "set", "made-to-order", file))[0] == 0
    order_id = await cases.add_delivered(("a", 1, 0))
    assert [obstacle.code for obstacle in (await cases.preview(order_id)).obstacles] == ["excluded"]
    status, text = await floodgate("aftersales", "policy", "show", "made-to-order")
    assert (status, json.loads(text)["excluded_because"]) == (0, "made to order")
    assert "made-to-order" in (await floodgate("aftersales", "policy", "list"))[1]
    file.write_text('{"skus": ["nothing"]}')
    status, text = await floodgate("aftersales", "policy", "set", "made-to-order", file)
    assert (status, "no such product" in text) == (1, True)
    file.write_text('{"days": 3}')
    status, text = await floodgate("aftersales", "policy", "set", "made-to-order", file)
    assert (status, "policy show" in text) == (1, True)
    assert (await floodgate("aftersales", "policy", "delete", "made-to-order"))[0] == 0
    assert (await floodgate("aftersales", "policy", "delete", "made-to-order"))[0] == 1
    assert (await floodgate("aftersales", "policy", "delete", "default"))[0] == 1
    assert (await cases.preview(order_id)).is_eligible
