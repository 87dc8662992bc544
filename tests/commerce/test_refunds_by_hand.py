"""P6: a refund at the provider by hand changes nothing here until two people have posted it."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

import pytest

from commerce.kernel.china_time import CHINA
from commerce.kernel.money import Money
from commerce.payments.other_ways import measure_refunds
from commerce.payments.provider_port import StatementLine
from commerce.payments.providers.alipay import wire
from commerce.refunds.hand_refunds import HandRefunds
from ops.sandbox.payment_store import SimulatedRefund
from tests.support.payment_shop import PaymentShop
from tests.support.staff_refunds import refund_as_staff

pytestmark = pytest.mark.usefixtures("short_polls")
TODAY = datetime.now(UTC).astimezone(CHINA).date()


@pytest.mark.parametrize("method", ["alipay", "wechatpay"])
async def test_refund_at_provider_by_hand_is_reported_and_changes_nothing(pay: PaymentShop, method: str) -> None:
    order_id, [payment] = await pay.add_paid_order((method, 100))
    out_no, by_hand = UUID(payment["payment_id"]).hex, uuid4()
    number = by_hand.hex if method == "wechatpay" else "console-1"
    pay.payment_store.refund(SimulatedRefund(method, number, out_no, "R1", 100, "", pay.shop.clock.now_ms()))
    # A webhook of Alipay about the trade has the sum of its refunds, WeChat Pay the number of each.
    named = by_hand if method == "wechatpay" else None
    webhook = pay.build_webhook(method, payment["payment_id"], named, webhook_id="n-hand")
    status, _ = await pay.send_webhook(method, webhook)
    assert status in (200, 400)
    [row] = await pay.fetch_rows("SELECT result FROM payment_webhooks WHERE result LIKE 'refused:%'")
    assert (
        "there is no refund" in row["result"] or "refunded 1.00 CNY, of which 0.00 CNY were requested" in row["result"]
    )
    assert await pay.fetch_value("SELECT count(*) FROM refunds") == 0
    assert await pay.fetch_value("SELECT refunded_minor FROM payments") == 0
    await pay.wait_for_order(order_id, "paid")
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean
    pay.payment_store._db.execute("DELETE FROM refunds")  # the records of both sides are compared at the end


# On a statement.


async def refund_by_hand(pay: PaymentShop, payment_id: UUID, amount: int = 100) -> StatementLine:
    """Refund a payment in Alipay's console. Returns the statement's line of it."""
    number = f"console-{amount}"
    pay.payment_store.refund(
        SimulatedRefund("alipay", number, payment_id.hex, "R1", amount, "", pay.shop.clock.now_ms())
    )
    text = pay.sandbox.protocols["alipay"].build_statement(
        pay.payment_store.list_paid_trades("alipay"), pay.payment_store.list_refunds("alipay")
    )
    lines = [line for line in wire.read_statement(text) if isinstance(line, StatementLine)]
    [line] = [line for line in lines if line.refund_id is not None and line.payment_id == payment_id]
    assert (line.hand_number, line.amount) == (number, Money(amount, "CNY"))
    return line


async def find(pay: PaymentShop, *lines: StatementLine) -> tuple[int, list[str]]:
    """Compare a statement and list its refunds by hand. Returns how many are new, and all reasons."""
    report = await pay.shop.payments.reconcile("alipay", TODAY, lines)
    by_hand = HandRefunds(pay.shop.db, pay.shop.clock, pay.shop.ids)
    new = await by_hand.find("alipay", TODAY, lines, report, "cli sam")
    return new, [difference.reason for difference in report.differences if difference.key == _key(lines[0])]


def _key(line: StatementLine) -> tuple[UUID, UUID | None]:
    return line.payment_id, line.refund_id


async def post(pay: PaymentShop, line: StatementLine, path: str, user: str = "sam", **body: str) -> tuple[int, str]:
    """Send a request of staff about a refund by hand. Returns (status, code or outcome)."""
    url = f"/v1/admin/refunds/{line.refund_id}/by-hand{path}"
    options = {"json": body} if body else {}
    answer = await pay.gateway.call("POST", url, user=user, roles=["support_lead"], **options)
    return answer.status, answer.code if answer.status >= 400 else (answer.body or {}).get("outcome", "")


async def test_refund_by_hand_on_a_statement_is_posted_by_two_people_once(pay: PaymentShop) -> None:
    order_id, [payment] = await pay.add_paid_order(("alipay", 100))
    line = await refund_by_hand(pay, UUID(payment["payment_id"]))
    new, [reason] = await find(pay, line)
    assert new == 1
    assert "1.00 CNY was refunded under 'console-100', which is no number of ours" in reason
    assert (await find(pay, line))[0] == 0, "it is listed already"
    [item] = (await pay.call_as_staff("GET", "/refunds/by-hand"))["items"]
    assert (item["order_id"], item["amount"]["amount"], item["number"]) == (str(order_id), 100, line.transaction_id)
    loads = {(load.method, load.reason): load.amount_minor for load in await measure_refunds(pay.shop.db)}
    assert loads == {("alipay", "by_hand"): 100}

    assert await post(pay, line, "/confirm") == (409, "refund_not_stuck")
    assert await post(pay, line, "", proof="sue, in the console: wrong size") == (204, "")
    assert await post(pay, line, "/confirm") == (409, "second_person_needed")
    for _ in range(2):
        assert await post(pay, line, "/confirm", "sue") == (200, "refund")
    assert await post(pay, line, "/confirm", "max") == (409, "refund_not_stuck")
    assert await post(pay, line, "", proof="another") == (409, "refund_not_stuck")
    assert (await pay.call_as_staff("GET", "/refunds/by-hand"))["items"] == []
    [row] = await pay.fetch_rows("SELECT * FROM refunds")
    assert (row["status"], row["way"], row["provider_refund_id"]) == ("done", "provider", line.transaction_id)
    assert await pay.fetch_value("SELECT refunded_minor FROM payments") == 100
    query = "SELECT sum(amount_minor)::bigint FROM ledger WHERE account = 'provider:alipay'"
    assert await pay.fetch_value(query) == 0
    assert (await find(pay, line)) == (0, []), "the statement and our records agree"
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean
    pay.payment_store._db.execute("UPDATE refunds SET out_refund_no = ?", (row["refund_id"].hex,))


async def test_refund_by_hand_beside_one_of_the_shop_is_a_loss(pay: PaymentShop) -> None:
    """Paid twice: the order stays as it is, and the provider's account shows what is gone."""
    order_id, [payment] = await pay.add_paid_order(("alipay", 100))
    line = await refund_by_hand(pay, UUID(payment["payment_id"]), 60)
    pay.payment_store._db.execute("DELETE FROM refunds")
    await refund_as_staff(pay.shop, order_id)
    await pay.wait_until_idle()
    assert (await find(pay, line))[0] == 1
    assert await post(pay, line, "", proof="sue refunded it twice") == (204, "")
    assert await post(pay, line, "/confirm", "sue") == (200, "loss")
    assert await pay.fetch_value("SELECT refunded_minor FROM payments") == 100
    rows = await pay.fetch_rows("SELECT account, amount_minor FROM ledger WHERE posting LIKE 'by_hand %'")
    assert {row["account"]: row["amount_minor"] for row in rows} == {"differences": 60, "provider:alipay": -60}
    assert (await find(pay, line))[0] == 0
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean


async def test_refund_by_hand_of_an_unknown_payment_is_no_finding(pay: PaymentShop) -> None:
    payment_id = uuid4()
    line = StatementLine(payment_id, uuid5(payment_id, "x"), Money(5, "CNY"), "T1", 0, "x")
    assert (await find(pay, line))[0] == 0
    assert await post(pay, line, "", proof="who knows") == (404, "not_found")
