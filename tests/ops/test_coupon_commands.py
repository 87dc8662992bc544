"""`floodgate coupon` as staff have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.coupons import make_promotion
from tests.support.processes import Processes
from tests.support.sales import make_sale


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def test_coupon_is_created_changed_and_listed(shop: CliServices, sale_id: str, floodgate: Command) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await make_promotion(shop, sale_id)
    words = ("coupon", "create", sale_id, "TEN", "--promotion", "ten-off", "--units", 100, "--per-user", 2)
    status, text = await floodgate(*words)
    assert (status, "TEN, for all: 100 in all, 2 per user, 0 used, 100 left" in text) == (0, True), text
    status, text = await floodgate("coupon", "change", sale_id, "TEN", "--units", 50, "--issued", "--json")
    assert status == 0, text
    assert {name: json.loads(text)[name] for name in ("units", "left", "issued")} == {
        "units": 50,
        "left": 50,
        "issued": True,
    }
    status, text = await floodgate("coupon", "list", sale_id)
    assert (status, "TEN" in text, "issued codes" in text) == (0, True, True), text
    status, text = await floodgate("coupon", "list", sale_id, "--json")
    assert [coupon["code"] for coupon in json.loads(text)] == ["TEN"]
    status, text = await floodgate("sale", "show", sale_id, "--items", "--json")
    assert [item["sku"] for item in json.loads(text)] == ["a"]
    status, text = await floodgate("sale", "change-stock", sale_id, "coupon:TEN", 1, "--reason", "one more")
    assert (status, "coupon:TEN +1: applied" in text) == (0, True), text


async def test_wrong_words_are_refused(shop: CliServices, sale_id: str, floodgate: Command) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await make_promotion(shop, sale_id)
    status, text = await floodgate("coupon", "create", sale_id, "ten", "--promotion", "p", "--units", 1)
    assert (status, "code" in text) == (1, True), text
    status, text = await floodgate("coupon", "change", sale_id, "TEN", "--reason", "none")
    assert (status, "there is nothing to change" in text) == (1, True), text
    status, text = await floodgate("coupon", "change", sale_id, "TEN", "--units", 3)
    assert (status, "has no coupon TEN" in text) == (1, True), text
    status, text = await floodgate("coupon", "issue", sale_id, "TEN")
    assert (status, "to nobody" in text) == (1, True), text
    assert "has no coupon" in (await floodgate("coupon", "list", sale_id))[1]


async def test_codes_are_printed_for_customers_of_arguments_and_file(
    shop: CliServices, sale_id: str, floodgate: Command, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await make_promotion(shop, sale_id)
    await floodgate("coupon", "create", sale_id, "TEN", "--promotion", "ten-off", "--units", 100, "--issued")
    file = tmp_path / "customers.txt"
    file.write_text("ben\r\n\r\ncat\r\n", encoding="utf-8")
    status, text = await floodgate("coupon", "issue", sale_id, "TEN", "ann", "--file", file, "--json")
    assert status == 0, text
    codes = json.loads(text)
    assert [issued["user_id"] for issued in codes] == ["ann", "ben", "cat"]
    assert len({issued["code"] for issued in codes}) == 3
    status, text = await floodgate("coupon", "issue", sale_id, "TEN", "ann")
    assert text.strip().split("\t") == ["ann", codes[0]["code"]]
    status, text = await floodgate("coupon", "issue", sale_id, "TEN", "no customer")
    assert (status, "users" in text) == (1, True), text
