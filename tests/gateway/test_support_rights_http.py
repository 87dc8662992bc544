"""Roles of support: reading, answering, deciding up to an amount and above it, and certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.postgres import Connection
from commerce.rights.model import SUPPORT_ROLES, include_lower_roles
from config.settings import Settings
from gateway.app import ADMIN
from gateway.auth import ROLES
from gateway.roles_page import BEGIN, END, format_roles
from tests.style.repository import ROOT
from tests.support.case_shop import CLAIM, CaseShop, open_case_shop
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.shipping_shop import ShippingShop
from tests.support.staff_refunds import refund_as_staff

BOUND = 150
"""minor units; a unit of product a costs 100"""


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(support={"decide_up_to": {"CNY": BOUND}})


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


class Staff:
    """A person with roles, who is called by a name."""

    def __init__(self, gateway: TestGateway, name: str, *roles: str) -> None:
        self._gateway = gateway
        self._name = name
        self._roles = roles

    async def post(self, path: str, body: Any, key: str | None = None) -> GatewayResponse:
        headers = {"Idempotency-Key": key} if key else None
        path = f"/v1/admin{path}"
        return await self._gateway.call("POST", path, user=self._name, roles=self._roles, json=body, headers=headers)

    async def decide(self, case_id: UUID, action: str, version: int, **more: Any) -> GatewayResponse:
        return await self.post(f"/cases/{case_id}/{action}", {"version": version, "reason": "so", **more})


class FakeCertificates:
    """Certificates by (actor, code)."""

    def __init__(self, *certificates: tuple[str, str]) -> None:
        self._certificates = certificates

    async def has_certificate(self, connection: Connection, actor: str, code: str) -> bool:
        return (actor, code) in self._certificates


def assert_refused(answer: GatewayResponse, right: str = "support_lead") -> None:
    assert (answer.status, answer.code) == (403, "right_needed"), answer.text
    assert answer.body["right"] == right


async def test_case_above_amount_is_decided_by_lead_alone(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2, kind=CLAIM, reason="damaged_or_defective")
    agent, lead = Staff(gateway, "ann", "support"), Staff(gateway, "lea", "support_lead")
    before = await cases.get(case_id)
    for action, terms in (("approve", {}), ("approve", {"amount": 151}), ("offer", {"amount": 151})):
        assert_refused(await agent.decide(case_id, action, 1, **terms))
    assert_refused(await agent.post(f"/cases/{case_id}/approve", {"version": 1, "reason": "so"}, key="k"))
    assert await cases.get(case_id) == before, "nothing was changed"
    assert (await agent.decide(case_id, "offer", 1, amount=150)).status == 200
    assert (await lead.decide(case_id, "approve", 2)).status == 200
    assert_refused(await agent.decide(case_id, "resolve", 3))
    assert await cases.state(case_id) == ("approved", "fixed", "staff")
    assert (await lead.decide(case_id, "resolve", 3)).status == 200
    assert await cases.refunded(order_id) == 200


async def test_case_up_to_the_amount_is_decided_by_support(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2, kind=CLAIM, reason="damaged_or_defective")
    for role in ("support_read", "support_answer"):
        refused = await Staff(gateway, "rob", role).decide(case_id, "approve", 1)
        assert (refused.status, refused.code) == (403, "forbidden")
    agent = Staff(gateway, "ann", "support")
    for version, action, terms in ((1, "approve", {"amount": BOUND}), (2, "resolve", {})):
        assert (await agent.decide(case_id, action, version, **terms)).status == 200, action
    assert await cases.refunded(order_id) == BOUND


async def test_refunds_in_small_parts_count_together(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    agent, lead = Staff(gateway, "ann", "support"), Staff(gateway, "lea", "support_lead")
    path = f"/orders/{order_id}/refunds"

    def body(key: str, amount: int) -> dict[str, Any]:
        return {"idempotency_key": key, "reason": "it was late", "amount": amount}

    assert_refused(await agent.post(path, body("a", 151)))
    assert (await agent.post(path, body("b", 100))).status == 200
    assert_refused(await agent.post(path, body("c", 51)))
    assert await cases.refunded(order_id) == 100
    assert (await agent.post(path, body("b", 100))).status == 200, "a repeat grants nothing"
    assert (await Staff(gateway, "bea", "support").post(path, body("d", 50))).status == 200
    assert (await lead.post(path, body("e", 90))).status == 200
    assert await cases.refunded(order_id) == 240
    assert_refused(await agent.post(path, {"idempotency_key": "f", "reason": "all that is left"}))


async def test_refunds_at_the_same_moment_do_not_pass_the_amount(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered(("a", 5, 0))
    agent = Staff(gateway, "ann", "support")
    bodies = [{"idempotency_key": f"k{n}", "reason": "it was late", "amount": 60} for n in range(6)]
    answers = await asyncio.gather(*(agent.post(f"/orders/{order_id}/refunds", body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [200, 200, 403, 403, 403, 403]
    assert await cases.refunded(order_id) == 120
    case_id = await cases.request(order_id, 1, kind=CLAIM, reason="damaged_or_defective")
    assert_refused(await agent.decide(case_id, "approve", 1))
    assert (await agent.decide(case_id, "approve", 1, amount=30)).status == 200


async def test_row_of_refund_list_above_amount_is_refused_alone(cases: CaseShop, gateway: TestGateway) -> None:
    first, second = [await cases.add_delivered(("a", 2, 0)) for _ in range(2)]
    rows = [
        {"row": "1", "order_id": str(first), "reason": "late", "amount": 151},
        {"row": "2", "order_id": str(second), "reason": "late", "amount": 100},
    ]
    answer = await Staff(gateway, "ann", "support").post("/refund-lists", {"name": "l", "rows": rows, "dry_run": False})
    outcomes = [(row["outcome"], row.get("code")) for row in answer.body["rows"]]
    assert outcomes == [("refused", "right_needed"), ("refunded", None)]
    assert (await cases.refunded(first), await cases.refunded(second)) == (0, 100)


async def test_cancellation_is_judged_by_its_refund(ship: ShippingShop, cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await ship.add_order(("a", 3, 0))
    agent, lead = Staff(gateway, "ann", "support"), Staff(gateway, "lea", "support_lead")
    path = f"/orders/{order_id}/cancel"
    two = {"reason": "as asked", "lines": [{"line_no": 0, "ship_to": 0, "quantity": 2}]}
    assert_refused(await agent.post(path, {"reason": "as asked"}))
    assert_refused(await agent.post(path, two, key="k1"))
    assert await ship.fetch_value("SELECT count(*) FROM cancellations") == 0
    unit = {"reason": "as asked", "lines": [{"line_no": 0, "ship_to": 0, "quantity": 1}]}
    assert (await agent.post(path, unit, key="k2")).status in (200, 202)
    assert_refused(await agent.post(path, unit, key="k3"))
    assert (await lead.post(path, two, key="k4")).status in (200, 202)


async def test_store_credit_above_amount_needs_lead(gateway: TestGateway) -> None:
    def body(amount: int) -> dict[str, Any]:
        return {"idempotency_key": f"k{amount}", "amount": amount, "currency": "CNY"}

    agent = Staff(gateway, "ann", "support")
    assert_refused(await agent.post("/store-credit/user", body(BOUND + 1)))
    assert (await agent.post("/store-credit/user", body(BOUND))).status == 200
    euros = {**body(BOUND * 9), "currency": "EUR"}
    assert (await agent.post("/store-credit/user", euros)).status == 200, "a currency without a bound"
    balances = (await gateway.call("GET", "/v1/store-credit", user="user")).text
    assert str(BOUND + 1) not in balances


async def test_operators_and_commands_decide_about_any_amount(cases: CaseShop, gateway: TestGateway) -> None:
    first, second = [await cases.add_delivered(("a", 3, 0)) for _ in range(2)]
    body = {"idempotency_key": "k", "reason": "all of it"}
    assert (await Staff(gateway, "oz", "operator").post(f"/orders/{first}/refunds", body)).status == 200
    await refund_as_staff(cases.ship.shop, second)
    assert (await cases.refunded(first), await cases.refunded(second)) == (300, 300)


async def test_required_certificate_gives_the_right(
    cases: CaseShop, gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those who lack it, leads cannot decide above the amount, and nobody acts on claims."""
    support = type(gateway.settings.support)(
        decide_up_to={"CNY": BOUND}, certificates={"claims": "claims-1", "support_lead": "money-2"}
    )
    object.__setattr__(gateway.services, "settings", gateway.settings.model_copy(update={"support": support}))
    order_id = await cases.add_delivered(("a", 3, 0))
    claim = await cases.request(order_id, 1, kind=CLAIM, reason="damaged_or_defective")
    agent, lead = Staff(gateway, "ann", "support"), Staff(gateway, "lea", "support_lead")
    path, body = f"/orders/{order_id}/refunds", {"idempotency_key": "k", "reason": "late", "amount": 160}
    for action in ("approve", "decline", "cancel"):
        refused = await lead.decide(claim, action, 1)
        assert_refused(refused, "claims")
        assert refused.body["certificate"] == "claims-1"
    assert_refused(await lead.post(path, body))
    certificates = FakeCertificates(("staff ann", "claims-1"), ("staff lea", "money-2"))
    object.__setattr__(gateway.services, "certificates", certificates)
    assert (await agent.decide(claim, "approve", 1)).status == 200
    assert_refused(await lead.decide(claim, "resolve", 2), "claims")
    assert_refused(await agent.post(path, body))
    assert (await lead.post(path, body)).status == 200
    assert (await Staff(gateway, "oz", "operator").decide(claim, "resolve", 2)).status == 200


@given(st.frozensets(st.sampled_from(ROLES)), st.frozensets(st.sampled_from(ROLES)))
def test_included_roles_grow_with_the_roles(some: frozenset[str], others: frozenset[str]) -> None:
    included = include_lower_roles(some)
    assert some <= included == include_lower_roles(included)
    assert included <= include_lower_roles(some | others)
    assert included - some <= set(SUPPORT_ROLES), "no role of support includes one of other staff"
    ranks = [SUPPORT_ROLES.index(role) for role in SUPPORT_ROLES if role in included]
    assert ranks == list(range(len(ranks)))


def test_table_of_roles_in_the_documentation_is_that_of_the_operations() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    table = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert table == format_roles(ADMIN).strip(), "run: python -m gateway.roles_page docs/api.md"
