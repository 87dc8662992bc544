"""Returns and cases over HTTP, for customers and staff."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.gateway import TestGateway
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def staff(gateway: TestGateway, method: str, path: str, **kwargs: Any) -> Any:
    return await gateway.call(method, f"/v1/admin{path}", user="sue", roles=["support"], **kwargs)


async def test_customer_and_staff_take_a_case_to_its_end(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    [line] = await cases.lines(order_id, 1)
    body = {
        "kind": "claim",
        "claim": "damaged",
        "reason": "damaged_or_defective",
        "lines": [{"shipment_id": str(line.shipment_id), "line_no": 0, "quantity": 1}],
    }
    path, key = f"/v1/orders/{order_id}/returns", {"Idempotency-Key": "k-1"}
    preview = await gateway.call("POST", f"{path}/preview", user="user", json=body)
    assert (preview.status, preview.body["is_eligible"], preview.body["total"]) == (200, True, 100)
    assert (await gateway.call("POST", path, user="user", json=body)).status == 400  # without a key
    assert (await gateway.call("POST", path, user="mallory", json=body, headers=key)).status == 404
    created = await gateway.call("POST", path, user="user", json=body, headers=key)
    assert created.status == 201, created.text
    case_id = created.body["case"]["case_id"]
    assert created.headers["Location"] == f"/v1/returns/{case_id}"
    assert (await gateway.call("POST", path, user="user", json=body, headers=key)).status == 200
    other = {**body, "lines": [{**body["lines"][0], "quantity": 2}]}  # type: ignore[dict-item]
    answer = await gateway.call("POST", path, user="user", json=other, headers=key)
    assert (answer.status, answer.body["code"]) == (422, "key_reused")
    answer = await gateway.call("POST", path, user="user", json=other, headers={"Idempotency-Key": "k-2"})
    assert (answer.status, answer.body["code"]) == (409, "not_returnable")
    assert answer.body["obstacles"][0]["pointer"] == "/lines/0/quantity"
    assert (await gateway.call("GET", f"/v1/returns/{case_id}", user="mallory")).status == 404
    listed = (await staff(gateway, "GET", "/cases")).body["items"]
    assert [case["case_id"] for case in listed] == [case_id]
    for action, version, status in (("approve", 1, 200), ("decline", 1, 409), ("resolve", 2, 200), ("resolve", 3, 409)):
        answer = await staff(gateway, "POST", f"/cases/{case_id}/{action}", json={"version": version, "reason": "so"})
        assert answer.status == status, (action, answer.text)
    assert answer.body["code"] == "case_status"
    await cases.work(case_id)
    own = await gateway.call("GET", "/v1/returns", user="user")
    assert [(case["status"], case["money_state"]) for case in own.body["items"]] == [("resolved", "done")]
    assert await cases.refunded(order_id) == 100
    assert (await staff(gateway, "GET", f"/cases/{case_id}")).body["case"]["waits_for"] == "nobody"


async def test_customer_answers_and_ends_cases(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    first, second = await cases.request(order_id, 1), await cases.request(order_id, 1)
    offer = {"version": 1, "reason": "keep it", "amount": 40}
    for case_id in (first, second):
        assert (await staff(gateway, "POST", f"/cases/{case_id}/offer", json=offer)).status == 200

    async def act(case_id: object, action: str, version: int) -> int:
        body = {"version": version}
        return int((await gateway.call("POST", f"/v1/returns/{case_id}/{action}", user="user", json=body)).status)

    assert await act(first, "offer/accept", 1) == 409
    assert await act(first, "offer/accept", 2) == 200
    assert await act(second, "offer/decline", 2) == 200
    assert await act(second, "escalate", 3) == 200
    assert await act(second, "cancel", 4) == 200
    assert await act(uuid4(), "cancel", 1) == 404
    pictures = {"version": 3, "evidence": [str(uuid4())]}
    assert (await gateway.call("POST", f"/v1/returns/{first}/evidence", user="user", json=pictures)).status == 404
    reopened = await staff(gateway, "POST", f"/cases/{second}/reopen", json={"version": 5, "reason": "so"})
    assert reopened.body["case"]["status"] == "requested"
    assert (await staff(gateway, "POST", f"/cases/{second}/cancel", json={"version": 6, "reason": "so"})).status == 200
    reasons = (await gateway.call("GET", "/v1/return-reasons")).body["items"]
    assert {"code": "too_small", "fault": "customer", "en": "Too small", "zh": "太小"} in reasons


async def test_staff_open_cases_and_set_policies(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 1, 0), days_ago=99)
    [line] = await cases.lines(order_id)
    request = {
        "kind": "return",
        "reason": "other_reason",
        "lines": [{"shipment_id": str(line.shipment_id), "line_no": 0, "quantity": 1}],
    }
    body, key = {"request": request, "reason": "a good customer"}, {"Idempotency-Key": "k"}
    answers = [await staff(gateway, "POST", f"/orders/{order_id}/cases", json=body, headers=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body["case"]["case_id"] == answers[1].body["case"]["case_id"]
    path = "/v1/admin/return-policies"
    assert (await gateway.call("GET", path, user="sue", roles=["support"])).status == 403

    async def put(name: str, **terms: Any) -> Any:
        return await gateway.call("PUT", f"{path}/{name}", user="sam", roles=["sales"], json=terms)

    assert (await put("long", return_days=30, skus=["a"])).body["version"] == 1
    assert (await put("long", return_days=60)).body["version"] == 2
    assert (await put("long", sale_id="no-such-sale")).status == 422
    assert (await put("default", sale_id="no-such-sale")).status == 422
    listed = await gateway.call("GET", path, user="sam", roles=["sales"])
    assert [policy["policy_id"] for policy in listed.body["items"]] == ["default", "long"]
    assert (await gateway.call("GET", f"{path}/long", user="sam", roles=["sales"])).body["terms"]["return_days"] == 60
    assert (await gateway.call("DELETE", f"{path}/long", user="sam", roles=["sales"])).status == 204
    assert (await gateway.call("DELETE", f"{path}/default", user="sam", roles=["sales"])).status == 409
