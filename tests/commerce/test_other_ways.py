"""P6: refunds that cannot go back to their payments end once, with consent, proof or a bank card."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually
from tests.support.staff_refunds import refund_as_staff

pytestmark = pytest.mark.usefixtures("short_polls")
SAME_PERSON = "UPDATE refund_other_ways SET confirmed_by = recorded_by, confirmed_at = now()"
CARD = {"bank": "ICBC_DEBIT", "account": "6222021234567890123", "name": "张三"}


@pytest.fixture
async def pay(shop: CliServices, sale_id: str) -> AsyncIterator[PaymentShop]:
    change = with_job_settings(max_attempts=2, backoff_max_s=0.05)
    async with open_payment_shop(shop, sale_id, items={"a": (50, 100, None)}, change=change) as payment_shop:
        yield payment_shop


async def add_stuck_refund(pay: PaymentShop, fault: str = "account_closed_share", method: str = "wechatpay") -> Any:
    """Refund an order of 100 that its provider cannot refund. Returns the row of the refund."""
    order_id, _ = await pay.add_paid_order((method, 100))
    pay.set_faults(**{fault: 1})
    await refund_as_staff(pay.shop, order_id)
    await wait_for_status(pay, order_id, "needs_other_way")
    pay.set_faults()
    [refund] = await pay.fetch_rows("SELECT * FROM refunds WHERE order_id = $1", order_id)
    return refund


async def wait_for_status(pay: PaymentShop, order_id: UUID, status: str) -> None:
    async def is_reached() -> bool:
        return bool(await pay.fetch_value("SELECT status FROM refunds WHERE order_id = $1", order_id) == status)

    await eventually(is_reached)


async def call(
    pay: PaymentShop,
    refund: Any,
    path: str,
    user: str = "sam",
    method: str = "POST",
    role: str = "support_lead",
    **body: Any,
) -> Any:
    """Send a request of staff about a refund. Returns (status, code)."""
    url = f"/v1/admin/refunds/{refund['refund_id']}/{path}"
    options = {"json": body} if body or path == "redirect" else {}
    answer = await pay.gateway.call(method, url, user=user, roles=[role], **options)
    return answer.status, answer.code if answer.status >= 400 else None


async def accept(pay: PaymentShop, refund: Any, user: str = "user") -> Any:
    url = f"/v1/orders/{refund['order_id']}/refunds/{refund['refund_id']}/store-credit"
    return await pay.gateway.call("POST", url, user=user)


async def test_customer_accepts_store_credit_once(pay: PaymentShop) -> None:
    refund = await add_stuck_refund(pay)
    assert (await accept(pay, refund, "somebody")).status == 404
    assert (await accept(pay, {**refund, "order_id": uuid4()})).status == 404
    answers = await asyncio.gather(*(accept(pay, refund) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert await pay.get_credit() == 100
    [shown] = answers[0].body["payments"][0]["refunds"]
    assert (shown["status"], shown["way"], shown["other_way_reason"]) == ("done", "store_credit", "account_closed")
    query = "SELECT account, amount_minor FROM ledger WHERE posting = 'refund ' || $1::text ORDER BY account"
    entries = await pay.fetch_rows(query, str(refund["refund_id"]))
    assert [tuple(entry) for entry in entries] == [("credit:user", -100), ("orders", 100)]
    assert await pay.fetch_value("SELECT recorded_by FROM refund_other_ways") == "customer user"
    assert (await call(pay, refund, "transfer", reference="B-1"))[1] == "refund_not_stuck"
    story = await pay.fetch_rows("SELECT reason FROM order_events WHERE kind = 'refund' ORDER BY seq")
    assert story[-1]["reason"] == "1.00 CNY was refunded as store credit"
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean


async def test_transfer_takes_two_people(pay: PaymentShop) -> None:
    refund = await add_stuck_refund(pay)
    assert (await call(pay, refund, "transfer/confirm"))[1] == "refund_not_stuck", "none is recorded"
    assert await call(pay, refund, "transfer", reference="B-0") == (204, None)
    assert await call(pay, refund, "transfer", reference="B-1") == (204, None), "the reference is corrected"
    assert (await call(pay, refund, "transfer/confirm"))[1] == "second_person_needed"
    assert await call(pay, refund, "transfer/confirm", user="eve", role="support") == (403, "forbidden")
    assert (await accept(pay, refund)).code == "transfer_recorded"
    assert (await call(pay, refund, "store-credit", proof="by phone"))[1] == "transfer_recorded"
    async with pay.shop.db.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(SAME_PERSON)
    page = await pay.call_as_staff("GET", "/refunds/needing-other-way?limit=1")
    row_time = refund["other_way_since"].timestamp()
    [item] = page["items"]
    assert page["next"] is None
    after = f"{round(row_time * 1_000_000)},{refund['refund_id']}"
    rest = await pay.call_as_staff("GET", f"/refunds/needing-other-way?cursor={after}")
    assert rest["items"] == [], "after the only one"
    assert (item["transfer_reference"], item["amount"]["amount"], item["method"]) == ("B-1", 100, "wechatpay")
    assert await call(pay, refund, "transfer", method="DELETE") == (204, None)
    assert await call(pay, refund, "transfer", reference="B-2", user="eve") == (204, None)
    for _ in range(2):
        assert await call(pay, refund, "transfer/confirm") == (204, None)
    row = (await pay.fetch_rows("SELECT status, way, provider_refund_id FROM refunds"))[0]
    assert tuple(row) == ("done", "transfer", "B-2")
    assert await pay.fetch_value("SELECT amount_minor FROM ledger WHERE account = 'bank'") == -100
    assert await pay.fetch_value("SELECT reference FROM postings WHERE kind = 'refund'") == "B-2"
    assert await pay.get_credit() == 0
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean
    async with pay.shop.db.connection() as connection:
        await connection.execute("UPDATE refund_other_ways SET confirmed_by = NULL, confirmed_at = NULL")
    findings = (await pay.shop.audit.audit_changes(pay.sale_id)).findings
    assert [finding.promise for finding in findings] == ["P6"], "a transfer without a second person is found"


async def test_abnormal_refund_goes_to_bank_card(pay: PaymentShop) -> None:
    refund = await add_stuck_refund(pay, "refund_abnormal_share")
    assert refund["other_way_reason"] == "abnormal"
    refused = await call(pay, refund, "redirect", card={**CARD, "bank": "NOWHERE"})
    assert refused == (409, "refund_not_redirected")
    await wait_for_status(pay, refund["order_id"], "needs_other_way")
    assert await call(pay, refund, "redirect", card={**CARD, "account": "12"}) == (422, "invalid")
    assert (await call(pay, refund, "redirect", card=CARD))[0] == 202
    await wait_for_status(pay, refund["order_id"], "done")
    assert await pay.fetch_value("SELECT way FROM refunds") == "provider"
    await pay.wait_until_idle()
    await pay.check_records()
    for table in ("refunds", "jobs", "staff_requests", "payment_webhooks", "order_events", "postings"):
        assert not await pay.fetch_value(
            f"SELECT count(*) FROM {table} AS kept WHERE kept::text LIKE '%1234567890123%' OR kept::text LIKE '%张三%'"
        ), table
    other = await add_stuck_refund(pay)
    assert (await call(pay, other, "redirect"))[1] == "refund_not_stuck", "only an abnormal one"


async def test_abnormal_refund_goes_to_the_merchant(pay: PaymentShop) -> None:
    refund = await add_stuck_refund(pay, "refund_abnormal_share")
    assert (await call(pay, refund, "redirect"))[0] == 202
    await wait_for_status(pay, refund["order_id"], "done")
    await pay.check_records()


async def test_one_of_several_ways_at_once_pays(pay: PaymentShop) -> None:
    """The customer, two people with a transfer, and the provider after all."""
    for round_no in range(3):
        refund = await add_stuck_refund(pay, "refund_abnormal_share")
        assert await call(pay, refund, "transfer", reference="B") == (204, None)
        if round_no == 1:
            assert await call(pay, refund, "transfer", method="DELETE") == (204, None)
        simulated = pay.payment_store.find_refund("wechatpay", refund["refund_id"].hex)
        assert simulated is not None
        pay.payment_store.redirect_refund(simulated, 0, 0)
        webhook = pay.build_webhook("wechatpay", refund["payment_id"], refund["refund_id"], webhook_id=f"n-{round_no}")
        answers = await asyncio.gather(
            accept(pay, refund),
            call(pay, refund, "transfer/confirm", user="eve"),
            call(pay, refund, "redirect", card=CARD) if round_no == 1 else asyncio.sleep(0),
            pay.send_webhook("wechatpay", webhook),
        )
        await pay.wait_until_idle()
        ledger = await pay.fetch_rows("SELECT * FROM ledger WHERE posting = $1", f"refund {refund['refund_id']}")
        assert len(ledger) == 2, answers
        paid = await pay.fetch_value("SELECT refunded_minor FROM payments WHERE payment_id = $1", refund["payment_id"])
        assert paid == 100
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean


async def test_parked_refund_is_given_up(pay: PaymentShop) -> None:
    """The provider refuses in words that nobody knows: staff look there and use another way."""
    order_id, _ = await pay.add_paid_order(("wechatpay", 100))
    async with pay.shop.db.connection() as connection:
        await connection.execute("UPDATE payments SET amount_minor = 101 WHERE order_id = $1", order_id)
    await refund_as_staff(pay.shop, order_id, amount=60)

    async def is_parked() -> bool:
        return bool(await pay.fetch_value("SELECT parked FROM jobs WHERE queue = 'refunds'"))

    await eventually(is_parked)
    [refund] = await pay.fetch_rows("SELECT * FROM refunds")
    assert (await call(pay, refund, "transfer", reference="B"))[1] == "refund_not_stuck"
    for _ in range(2):
        assert await call(pay, refund, "give-up", reason="no such refund in the console") == (204, None)
    row = (await pay.fetch_rows("SELECT status, other_way_reason, provider_error FROM refunds"))[0]
    assert tuple(row)[:2] == ("needs_other_way", "by_staff")
    assert "no such refund in the console; before: wechatpay refuses: PARAM_ERROR" in row["provider_error"]
    assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE queue = 'refunds'") == 0
    assert (await call(pay, refund, "store-credit", proof="by phone on Monday"))[0] == 204
    assert await pay.get_credit() == 60
