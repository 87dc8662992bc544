"""P6: money that somebody refunds at the provider by hand is reported, and changes nothing here."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from ops.sandbox.payment_store import SimulatedRefund
from tests.support.payment_shop import PaymentShop

pytestmark = pytest.mark.usefixtures("short_polls")


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
