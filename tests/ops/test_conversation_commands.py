"""`floodgate conversation` as staff have it: the same as over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.conversation_shop import ConversationShop, open_conversation_shop
from tests.support.processes import Processes


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.fixture
def talks(shop: CliServices, tmp_path: Path) -> ConversationShop:
    return open_conversation_shop(shop, tmp_path)


async def test_staff_answer_by_command(talks: ConversationShop, floodgate: Command) -> None:
    first, second = await talks.open_question(text="Where is it?"), await talks.open_question(text="And my other box?")
    status, text = await floodgate("conversation", "list", "--json")
    assert (status, [each["conversation_id"] for each in json.loads(text)]) == (0, [str(first), str(second)])
    assert str(first) in (await floodgate("conversation", "take", "--staff", "sue"))[1]
    assert str(first) in (await floodgate("conversation", "list", "--assignee", "sue"))[1]
    assert (await floodgate("conversation", "note", first, "--text", "ask the carrier"))[0] == 0
    status, text = await floodgate("conversation", "reply", first, "--text", "Tomorrow.", "--version", 1)
    assert (status, "read it again" in text) == (1, True), text
    status, text = await floodgate("conversation", "reply", first, "--text", "Tomorrow.")
    assert (status, "waiting_customer" in text, "(note)" in text) == (0, True, True), text
    assert (await floodgate("conversation", "change", second, "--priority", 1, "--tag", "box"))[0] == 0
    assert str(second) in (await floodgate("conversation", "list", "--tag", "box", "--status", "new"))[1]
    status, text = await floodgate("conversation", "merge", second, "--into", first)
    assert (status, "And my other box?" in text) == (0, True), text
    assert (await floodgate("conversation", "assign", first))[0] == 0
    for command, expected in (("resolve", "resolved"), ("reopen", "open"), ("close", "closed")):
        status, text = await floodgate("conversation", command, first, "--reason", "done")
        assert (status, f"{expected}, version" in text) == (0, True), text
    assert "no conversation waits" in (await floodgate("conversation", "take", "--staff", "sue"))[1]
    status, text = await floodgate("conversation", "show", second, "--json")
    assert json.loads(text)["conversation"]["merged_into"] == str(first)
    assert (await floodgate("conversation", "reply", first, "--text", " "))[0] != 0
