"""`floodgate case-rule`: the same as over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.rule_shop import RuleShop, open_rule_shop
from tests.support.shipping_shop import ShippingShop

ROWS = """{"rules": [{"outcome": "decline", "reason": "too late", "conditions": {"kinds": ["return"]}},
                     {"outcome": "by_hand", "reason": "a person decides"}]}"""
TIMES = ("--from", "2026-01-01T00:00:00Z", "--to", "2999-01-01T00:00:00Z")


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.fixture
def rules(ship: ShippingShop) -> RuleShop:
    return open_rule_shop(ship)


async def test_rules_are_tried_added_and_stopped_by_command(
    rules: RuleShop, floodgate: Command, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    file.write_text(ROWS)
    await rules.request_many(1, 2)
    await rules.work()
    status, text = await floodgate("case-rule", "try", file, *TIMES)
    assert (status, "2 cases" in text, "decline" in text, "undecided" in text) == (0, True, True, True), text
    text = (await floodgate("case-rule", "try", file, *TIMES, "--json"))[1]
    assert json.loads(text[text.index("{") :])["cases"] == 2
    status, text = await floodgate("case-rule", "add", file, "--reason", "first")
    assert (status, "case-rule activate 1" in text) == (0, True), text
    status, text = await floodgate("case-rule", "activate", 1, "--reason", "go")
    assert (status, "version 1 decides" in text) == (0, True), text
    status, text = await floodgate(
        "case-rule", "budget", "CNY", "--max-amount", 900, "--max-cases", 3, "--reason", "go"
    )
    assert (status, "9.00 CNY" in text) == (0, True), text
    [case_id] = await rules.request_many(1, 1)
    assert await rules.work() == ["decline"]
    status, text = await floodgate("case-rule", "decisions", case_id)
    assert (status, "1 of set 1" in text, "too late" in text) == (0, True, True), text
    status, text = await floodgate("case-rule", "switch", "off", "--reason", "wrong")
    assert (status, "switched off" in text) == (0, True), text
    assert "switched off" in (await floodgate("case-rule", "show"))[1]
    assert "first" in (await floodgate("case-rule", "list"))[1]
    assert "too late" in (await floodgate("case-rule", "show", "--version", 1))[1]
    assert "no version" in (await floodgate("case-rule", "deactivate", "--reason", "people decide"))[1]


async def test_bad_rules_are_refused_with_their_place(floodgate: Command, shop: object, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    for content, part in (
        ("{", "JSON"),
        ('{"rules": []}', "rules"),
        (ROWS.replace("by_hand", "approve"), "/rules/1"),
        (ROWS.replace("decline", "maybe"), "rules[0]"),
    ):
        file.write_text(content)
        status, text = await floodgate("case-rule", "add", file, "--reason", "try")
        assert (status, part in text) == (1, True), text
    assert (await floodgate("case-rule", "activate", 9, "--reason", "try"))[0] == 1
    assert (await floodgate("case-rule", "budget", "XXX", "--max-amount", 1, "--max-cases", 1, "--reason", "x"))[0] == 1
