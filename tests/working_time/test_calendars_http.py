"""Working calendars and policies of deadlines over HTTP and with commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.gateway import TestGateway
from tests.support.processes import Processes

_CALENDARS, _POLICIES = "/v1/admin/working-calendars", "/v1/admin/deadline-policies"
_HOURS = {"monday": ["09:00-12:00", "13:00-18:00"], "make_up_day": ["10:00-15:00"]}


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def _generation(shop: CliServices) -> int:
    async with shop.db.connection() as connection:
        generation: int = await connection.fetchval("SELECT generation FROM deadline_generation")
    return generation


async def test_calendar_is_set_read_and_deleted(gateway: TestGateway, shop: CliServices) -> None:
    before = await _generation(shop)
    terms = {"zone": "Europe/Berlin", "hours": _HOURS, "exceptions": [{"day": "2026-12-24", "reason": "Christmas Eve"}]}
    put = await gateway.call("PUT", f"{_CALENDARS}/berlin", roles=["support_lead"], json=terms)
    assert (put.status, put.body["version"], put.body["uncertain_from"]) == (200, 1, None), put.text
    assert put.body["terms"]["hours"]["make_up_day"] == ["10:00-15:00"]
    again = await gateway.call("PUT", f"{_CALENDARS}/berlin", roles=["support_lead"], json=terms)
    assert again.body["version"] == 2
    assert await _generation(shop) > before
    read = await gateway.call("GET", f"{_CALENDARS}/berlin", roles=["support_lead"])
    assert read.body == again.body
    listed = await gateway.call("GET", f"{_CALENDARS}?limit=1", roles=["support_lead"])
    assert ([item["calendar_id"] for item in listed.body["items"]], listed.body["next"]) == (["berlin"], "berlin")
    rest = await gateway.call("GET", f"{_CALENDARS}?cursor=berlin", roles=["support_lead"])
    [default] = rest.body["items"]
    assert (default["calendar_id"], default["uncertain_from"][5:]) == ("default", "01-01")

    policy = {"kind": "claim", "calendar_id": "berlin", "decision_s": 3600}
    assert (await gateway.call("PUT", f"{_POLICIES}/claims", roles=["support_lead"], json=policy)).status == 200
    used = await gateway.call("DELETE", f"{_CALENDARS}/berlin", roles=["support_lead"])
    assert (used.status, used.code) == (409, "conflict")
    assert (await gateway.call("DELETE", f"{_POLICIES}/claims", roles=["support_lead"])).status == 204
    assert (await gateway.call("DELETE", f"{_CALENDARS}/berlin", roles=["support_lead"])).status == 204
    assert (await gateway.call("DELETE", f"{_CALENDARS}/berlin", roles=["support_lead"])).status == 404
    assert (await gateway.call("DELETE", f"{_CALENDARS}/default", roles=["support_lead"])).status == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "pointer"),
    [
        (f"{_CALENDARS}/x", {"hours": {"monday": ["18:00-09:00"]}}, 422, "/hours"),
        (f"{_CALENDARS}/x", {"hours": {}}, 422, "/hours"),
        (f"{_CALENDARS}/x", {"hours": _HOURS, "zone": "Mars/Olympus"}, 422, ""),
        (f"{_CALENDARS}/x", {"hours": _HOURS, "lunch": True}, 422, ""),
        (f"{_POLICIES}/x", {"decision_s": 59}, 422, "/decision_s"),
        (f"{_POLICIES}/x", {"decision_s": 5_184_001}, 422, "/decision_s"),
        (f"{_POLICIES}/x", {"priority": 5}, 422, "/priority"),
        (f"{_POLICIES}/x", {"kind": "claim", "calendar_id": "nowhere"}, 422, "/calendar_id"),
        (f"{_POLICIES}/x", {"team_id": "nobody"}, 422, "/team_id"),
        (f"{_POLICIES}/x", {"kind": "claim", "escalation_team_id": "nobody"}, 422, "/escalation_team_id"),
        (f"{_POLICIES}/x", {}, 409, None),  # for all conversations, as `default` is
        (f"{_POLICIES}/default", {"kind": "claim"}, 422, None),
    ],
)
async def test_bad_calendar_or_policy_is_refused(
    gateway: TestGateway, path: str, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = await gateway.call("PUT", path, roles=["support_lead"], json=body)
    assert answer.status == status, answer.text
    if pointer is not None:
        assert [error["pointer"] for error in answer.body["errors"]] == [pointer]


async def test_policies_and_calendars_are_set_by_command(floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "terms.json"
    status, text = await floodgate("deadlines", "calendar", "show", "default")
    assert (status, json.loads(text)["public_holidays"]) == (0, "china")
    file.write_text(text)
    assert await floodgate("deadlines", "calendar", "set", "second", file) == (0, "the calendar second has version 1\n")
    assert "Asia/Shanghai" in (await floodgate("deadlines", "calendar", "list"))[1]
    assert (await floodgate("deadlines", "calendar", "delete", "second"))[0] == 0
    file.write_text('{"kind": "claim", "first_response_s": 5400}')
    assert (await floodgate("deadlines", "policy", "set", "claims", file))[0] == 0
    status, text = await floodgate("deadlines", "policy", "list")
    assert (status, "1.5 h" in text) == (0, True)
    status, text = await floodgate("deadlines", "policy", "show", "claims")
    assert (status, json.loads(text)["kind"]) == (0, "claim")
    file.write_text('{"hours": 3}')
    status, text = await floodgate("deadlines", "policy", "set", "claims", file)
    assert (status, "deadlines policy show" in text) == (1, True)
    assert (await floodgate("deadlines", "policy", "delete", "claims"))[0] == 0
    assert (await floodgate("deadlines", "policy", "delete", "default"))[0] == 1
