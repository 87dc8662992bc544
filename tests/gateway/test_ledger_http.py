"""Held cash, its deposits and the trial balance over HTTP, for staff with the role only."""

from __future__ import annotations

from uuid import UUID

from tests.support.payment_shop import PaymentShop

DEPOSIT = {"idempotency_key": "k", "holder": "shop", "to": "bank", "amount": 60, "currency": "CNY"}


async def test_collected_cash_is_deposited_over_http(pay: PaymentShop) -> None:
    _, [payment] = await pay.add_order_with_payments(("cod", 100))
    await pay.call_as_staff("POST", f"/payments/{payment['payment_id']}/cash-collected")
    [held] = (await pay.call_as_staff("GET", "/cash"))["items"]
    assert (held["holder"], held["balance"], held["currency"]) == ("shop", 100, "CNY")
    assert held["oldest_at"]
    for _ in range(2):
        answer = await pay.call_as_staff("POST", "/cash/deposits", json=DEPOSIT)
        assert (answer["deposited"], answer["left"]["balance"]) == (60, 40)
    trial = await pay.call_as_staff("GET", "/accounts")
    assert {item["account"]: item["balance"] for item in trial["items"]} == {
        "bank": 60,
        "cash:shop": 40,
        "collected": 0,
        "orders": -100,
    }
    assert trial["difference"] == {"CNY": 0}
    assert (await pay.call_as_staff("GET", "/accounts?month=2026-02"))["items"] == []
    assert await pay.fetch_value("SELECT actor FROM postings WHERE kind = 'cash_deposit'") == "staff sam"


async def test_cash_may_be_recorded_for_a_driver(pay: PaymentShop) -> None:
    _, [payment] = await pay.add_order_with_payments(("cod", 100))
    path = f"/payments/{UUID(payment['payment_id'])}/cash-collected"
    await pay.call_as_staff("POST", f"{path}?holder=driver:V1")
    [held] = (await pay.call_as_staff("GET", "/cash"))["items"]
    assert held["holder"] == "driver:V1"


async def test_cash_is_waived_only_if_it_is_missing(pay: PaymentShop) -> None:
    _, [payment] = await pay.add_order_with_payments(("cod", 100))
    path = "/v1/admin/payments/{}/cash-waived"
    for payment_id, status, code in ((payment["payment_id"], 409, "not_collectable"), (UUID(int=7), 404, "not_found")):
        answer = await pay.gateway.call(
            "POST", path.format(payment_id), user="sam", roles=["support"], json={"reason": "the driver lost it"}
        )
        assert (answer.status, answer.code) == (status, code)
