"""Rules that decide cases over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from commerce.kernel.clock import from_ms
from tests.support.gateway import TestGateway
from tests.support.rule_shop import RuleShop, open_rule_shop
from tests.support.shipping_shop import ShippingShop

ROWS = [
    {"outcome": "approve", "reason": "send it back", "conditions": {"kinds": ["return"], "max_amount": {"CNY": 500}}},
    {"outcome": "by_hand", "reason": "a person decides"},
]


@pytest.fixture
def rules(ship: ShippingShop) -> RuleShop:
    return open_rule_shop(ship)


async def lead(gateway: TestGateway, method: str, path: str, **kwargs: Any) -> Any:
    return await gateway.call(method, f"/v1/admin{path}", user="lea", roles=["support_lead"], **kwargs)


async def test_lead_adds_tries_activates_and_stops_rules(rules: RuleShop, gateway: TestGateway) -> None:
    state = await lead(gateway, "GET", "/case-rules")
    assert (state.status, state.body) == (200, {"is_on": True, "active_version": None, "budgets": []})
    [before] = await rules.request_many(1, 1)
    assert await rules.work() == ["no_rules"]
    now = from_ms(rules.cases.ship.shop.clock.now_ms())
    times = {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    tried = await lead(gateway, "POST", "/case-rules/dry-run", json={"rules": ROWS, **times})
    assert (tried.status, tried.body["differences"][0]["sample"]) == (200, [str(before)]), tried.text

    key = {"Idempotency-Key": "k"}
    added = await lead(gateway, "POST", "/case-rules/sets", json={"rules": ROWS, "reason": "first"}, headers=key)
    assert (added.status, added.headers["Location"]) == (201, "/v1/admin/case-rules/sets/1"), added.text
    again = await lead(gateway, "POST", "/case-rules/sets", json={"rules": ROWS, "reason": "first"}, headers=key)
    assert again.body == added.body
    assert (await lead(gateway, "GET", "/case-rules/sets/1")).body["rules"] == added.body["rules"]
    assert [each["version"] for each in (await lead(gateway, "GET", "/case-rules/sets")).body["items"]] == [1]
    assert (await lead(gateway, "GET", "/case-rules/sets/2")).status == 404
    for action, body in (("activate", {"version": 1}), ("switch", {"is_on": True})):
        answer = await lead(gateway, "POST", f"/case-rules/{action}", json={**body, "reason": "go"}, headers={})
        assert (answer.status, answer.body["active_version"]) == (200, 1), answer.text
    budget = {"max_amount": 500, "max_cases": 5, "reason": "go"}
    answer = await lead(gateway, "PUT", "/case-rules/budgets/CNY", json=budget)
    assert (answer.status, answer.body["budgets"][0]["max_amount"]) == (200, 500), answer.text

    [case_id] = await rules.request_many(1, 1)
    assert await rules.work() == ["approve"]
    [decision] = (await lead(gateway, "GET", f"/cases/{case_id}/decisions")).body["items"]
    assert (decision["outcome"], decision["rule_no"], decision["inputs"]["amount"]) == ("approve", 1, 100)
    assert (await lead(gateway, "GET", f"/cases/{uuid4()}/decisions")).status == 404
    stopped = await lead(gateway, "POST", "/case-rules/switch", json={"is_on": False, "reason": "wrong"}, headers=key)
    assert stopped.status == 422  # the key belongs to another request
    stopped = await lead(gateway, "POST", "/case-rules/switch", json={"is_on": False, "reason": "wrong"})
    assert (stopped.status, stopped.body["is_on"], stopped.body["budgets"][0]["amount"]) == (200, False, 100)
    events = (await lead(gateway, "GET", "/case-rules/events")).body["items"]
    assert [(event["kind"], event["actor"]) for event in events] == [
        (kind, "staff lea") for kind in ("switched_off", "budget_set", "activated", "set_added")
    ]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/case-rules/sets", {"rules": [], "reason": "x"}, "/rules"),
        ("/case-rules/sets", {"rules": ROWS[::-1], "reason": "x"}, "/rules/0"),
        ("/case-rules/sets", {"rules": [{**ROWS[0], "outcome": "maybe"}, ROWS[1]], "reason": "x"}, "/rules/0/outcome"),
        (
            "/case-rules/sets",
            {"rules": [{**ROWS[0], "conditions": {"skus": ["nothing"]}}, ROWS[1]], "reason": "x"},
            "/rules/0/conditions/skus",
        ),
        ("/case-rules/dry-run", {"rules": ROWS, "from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "/to"),
        ("/case-rules/dry-run", {"rules": ROWS, "from": "2026-11-02", "to": "2026-11-03T00:00:00Z"}, "/from"),
        ("/case-rules/switch", {"is_on": "no", "reason": "x"}, "/is_on"),
        ("/case-rules/activate", {"version": 0, "reason": "x"}, "/version"),
        ("/case-rules/activate", {"version": None}, ""),
    ],
)
async def test_bad_request_is_refused_where_it_is_bad(
    rules: RuleShop, gateway: TestGateway, path: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await lead(gateway, "POST", path, json=body)
    assert answer.status == 422, answer.text
    assert answer.body["errors"][0]["pointer"] == pointer
    assert (await lead(gateway, "GET", "/case-rules/sets")).body["items"] == []
