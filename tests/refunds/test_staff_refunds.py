"""Refunds by staff: under a key once, shown before they are made, over HTTP and by command."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.kernel.errors import KeyReused
from commerce.payments.errors import RefundExceedsCaptured
from commerce.refunds.model import RefundLineInput
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.gateway import TestGateway
from tests.support.processes import Processes
from tests.support.refund_orders import LineOfOrder, RefundOrders
from tests.support.staff_refunds import refund_as_staff


@pytest.fixture
def refunds(shop: CliServices) -> RefundOrders:
    return RefundOrders(shop)


async def refund(refunds: RefundOrders, order_id: UUID, key: str = "k", **terms: Any) -> None:
    await refund_as_staff(refunds.shop, order_id, key, **{"reason": "a dent", **terms})


async def test_refund_without_extent_is_all_that_is_left(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(3, 100, discount=1)], [("alipay", 200), ("balance", 114)], freight=15)
    await refund(refunds, order_id, "amount", amount=20)
    await refund(refunds, order_id, "unit", lines=[RefundLineInput(line_no=0, quantity=1)], fee=9)
    await refund(refunds, order_id, "rest")
    assert await refunds.refunded(order_id) == {"alipay": 200, "balance": 114}
    assert await refunds.fetch("SELECT sum(quantity) FROM refund_grant_lines") == [(3,)]
    with pytest.raises(RefundExceedsCaptured):
        await refund(refunds, order_id, "more")


async def test_key_stands_for_one_refund(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 200)])
    for _ in range(2):
        await refund(refunds, order_id, amount=50)
    for terms in ({"amount": 51}, {}, {"amount": 50, "reason": "a scratch"}, {"amount": 50, "strategy": "last"}):
        with pytest.raises(KeyReused, match="another refund of 50"):
            await refund(refunds, order_id, **terms)
    other_id = await refunds.add([LineOfOrder(1, 100)], [("alipay", 100)])
    await refund(refunds, other_id, amount=7)
    assert (await refunds.refunded(order_id), await refunds.refunded(other_id)) == ({"alipay": 50}, {"alipay": 7})


async def test_key_of_earlier_version_is_still_used(refunds: RefundOrders) -> None:
    """Before there were grants a refund of staff had its key in its row."""
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 200)])
    await refund(refunds, order_id, amount=30)
    async with refunds.shop.db.connection() as connection:
        await connection.execute("UPDATE refunds SET refund_key = 'staff k'")
        await connection.execute("DELETE FROM refund_grants")
    for terms in ({"amount": 30}, {}):
        await refund(refunds, order_id, **terms)
    for terms in ({"amount": 31}, {"lines": [RefundLineInput(line_no=0, quantity=1)]}):
        with pytest.raises(KeyReused):
            await refund(refunds, order_id, **terms)
    assert await refunds.refunded(order_id) == {"alipay": 30}


async def test_cash_still_due_is_not_refunded_with_the_rest(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 120), ("cod", 80)])
    await refund(refunds, order_id)
    assert await refunds.refunded(order_id) == {"alipay": 120}


# Over HTTP and by command.


async def test_preview_over_http_shows_units_and_payments(gateway: TestGateway, refunds: RefundOrders) -> None:
    order_id = await refunds.add(
        [LineOfOrder(3, 100, discount=1)], [("balance", 99), ("alipay", 200), ("cod", 15)], freight=15
    )
    path = f"/v1/admin/orders/{order_id}/refunds"
    staff: dict[str, Any] = {"user": "sam", "roles": ["support"]}
    terms = {"lines": [{"line_no": 0, "quantity": 2}], "freight": 5, "fee": 1}
    answer = await gateway.call("POST", f"{path}/preview", json=terms, **staff)
    assert answer.status == 200, answer.text
    [line] = answer.body["lines"]
    assert (answer.body["amount"], answer.body["freight"], answer.body["fee"]) == (203, 5, 1)
    assert line["unit_amounts"] == [{"units": 1, "amount": 99}, {"units": 1, "amount": 100}]
    assert [(part["method"], part["amount"], part["goes_to"]) for part in answer.body["allocations"]] == [
        ("balance", 67, "store_credit"),
        ("alipay", 136, "provider"),
    ]
    assert await refunds.refunded(order_id) == {}
    body = {**terms, "idempotency_key": "k", "reason": "a dent"}
    answer = await gateway.call("POST", path, json=body, **staff)
    assert answer.status == 200, answer.text
    assert answer.body["net_captured"] == 299 - 67, "store credit is refunded at once"
    assert await refunds.refunded(order_id) == {"balance": 67, "alipay": 136}


@pytest.mark.parametrize(
    ("terms", "status", "code"),
    [
        ({"lines": [{"line_no": 0, "quantity": 3}]}, 409, "units_refunded"),
        ({"lines": [{"line_no": 1, "quantity": 1}]}, 422, "invalid"),
        ({"lines": [{"line_no": 0, "quantity": 1}], "freight": 16}, 409, "freight_refunded"),
        ({"lines": [{"line_no": 0, "quantity": 1}], "amount": 101}, 422, "invalid"),
        ({"lines": [{"line_no": 0, "quantity": 1}], "fee": 101}, 422, "invalid"),
        ({"amount": 216}, 409, "refund_exceeds_captured"),
        ({"strategy": "random"}, 422, "invalid"),
        ({"freight": "all"}, 422, "invalid"),
    ],
)
async def test_refused_refund_has_its_code_and_stores_nothing(
    gateway: TestGateway, refunds: RefundOrders, terms: dict[str, Any], status: int, code: str
) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 215)], freight=15)
    for path, more in (("/preview", {}), ("", {"idempotency_key": "k", "reason": "a dent"})):
        answer = await gateway.call(
            "POST", f"/v1/admin/orders/{order_id}/refunds{path}", json=terms | more, user="sam", roles=["support"]
        )
        assert (answer.status, answer.body["code"]) == (status, code), answer.text
    assert await refunds.fetch("SELECT 1 FROM refund_grants UNION ALL SELECT 1 FROM refunds") == []


async def test_refund_of_unknown_order_or_by_wrong_role_is_refused(gateway: TestGateway) -> None:
    for path, body in (("/preview", {}), ("", {"idempotency_key": "k", "reason": "a dent"})):
        url = f"/v1/admin/orders/{uuid4()}/refunds{path}"
        answer = await gateway.call("POST", url, json=body, user="sam", roles=["support"])
        assert answer.status == 404
        answer = await gateway.call("POST", url, json=body, user="sam", roles=["warehouse"])
        assert answer.status == 403


async def test_refund_command_shows_and_refunds_units(
    settings: Settings, tmp_path: Path, refunds: RefundOrders
) -> None:
    floodgate = make_command(Processes(settings, tmp_path).environment())
    lines = [LineOfOrder(3, 100, discount=1), LineOfOrder(2, 50, line_no=1, address_no=1)]
    order_id = await refunds.add(lines, [("alipay", 300), ("balance", 114)], freight=15)
    command = ("payment", "refund", order_id, "--reason", "a dent", "--line", "0=2", "--line", "1:1=1")
    options = ("--freight", "unshipped", "--fee", "0.10", "--strategy", "first")
    status, output = await floodgate(*command, *options, "--dry-run")
    assert status == 0, output
    assert "refund 2.39 CNY: freight 0.00 CNY, withheld 0.10 CNY, shared by first; nothing is stored" in output
    assert "1 x 0.99 CNY, 1 x 1.00 CNY" in output
    assert await refunds.refunded(order_id) == {}
    status, output = await floodgate(*command, *options)
    assert (status, "send --key" in output) == (1, True)
    status, output = await floodgate(*command, *options, "--key", "k")
    assert status == 0, output
    assert await refunds.refunded(order_id) == {"alipay": 239}
    for wrong, words in (("2", "write NO=QTY"), ("0=2", "so 1 are left"), ("7=1", "no line 7")):
        status, output = await floodgate(*command[:5], "--line", wrong, "--key", "l")
        assert (status, words in output) == (1, True), output
