"""The sandbox's payment store: it refuses requests as a provider does, and a kill loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from ops.sandbox.payment_store import (
    DuePaymentWebhook,
    PaymentStore,
    PaymentStoreRefusal,
    SimulatedRefund,
    SimulatedTrade,
)

TRADE = SimulatedTrade(
    "fake", "a" * 32, "T1", 500, "CNY", "tea", "page", "", "http://localhost/n", "waiting", 1_000, 9_000
)
REFUND = SimulatedRefund("fake", "b" * 32, TRADE.out_no, "R1", 200, "broken", 3_000)


@pytest.fixture
def store() -> Iterator[PaymentStore]:
    with closing(PaymentStore()) as payment_store:
        yield payment_store


def expect_refusal(code: str) -> AbstractContextManager[object]:
    return pytest.raises(PaymentStoreRefusal, check=lambda error: error.code == code)


def test_trade_opened_twice_is_stored_once(store: PaymentStore) -> None:
    assert store.open_trade(TRADE) == TRADE
    assert store.open_trade(replace(TRADE, trade_no="T2")) == TRADE
    for changes in ({"amount": 501}, {"subject": "other words"}, {"payer": "another"}):
        with expect_refusal("other_content"):
            store.open_trade(replace(TRADE, **changes))
    assert store.find_trade("other", TRADE.out_no) is None
    assert store.list_waiting("fake", 10) == [TRADE]


def test_trade_is_paid_once(store: PaymentStore) -> None:
    with expect_refusal("no_trade"):
        store.pay("fake", TRADE.out_no, 2_000)
    store.open_trade(TRADE)
    paid = store.pay("fake", TRADE.out_no, 2_000)
    assert paid == replace(TRADE, state="captured", paid_ms=2_000, times_paid=1)
    with expect_refusal("paid"):
        store.pay("fake", TRADE.out_no, 2_001)
    with expect_refusal("paid"):
        store.open_trade(TRADE)
    assert store.list_waiting("fake", 10) == []
    assert store.list_last_paid("fake", 10) == store.list_paid_trades("fake", 2_000, 2_001) == [paid]
    assert store.list_paid_trades("fake", 2_001) == []


def test_closed_or_expired_trade_is_not_paid(store: PaymentStore) -> None:
    with expect_refusal("no_trade"):
        store.close_trade("fake", TRADE.out_no)
    store.open_trade(TRADE)
    with expect_refusal("closed"):
        store.pay("fake", TRADE.out_no, TRADE.expires_ms)
    assert store.close_trade("fake", TRADE.out_no).state == "closed"
    assert store.close_trade("fake", TRADE.out_no).state == "closed"
    with expect_refusal("closed"):
        store.pay("fake", TRADE.out_no, 2_000)
    with expect_refusal("closed"):
        store.open_trade(TRADE)


def test_paid_trade_is_not_closed(store: PaymentStore) -> None:
    store.open_trade(TRADE)
    store.pay("fake", TRADE.out_no, 2_000)
    with expect_refusal("paid"):
        store.close_trade("fake", TRADE.out_no)


def test_refund_of_more_than_paid_is_refused(store: PaymentStore) -> None:
    with expect_refusal("no_trade"):
        store.refund(REFUND)
    store.open_trade(TRADE)
    with expect_refusal("not_paid"):
        store.refund(REFUND)
    store.pay("fake", TRADE.out_no, 2_000)
    assert store.refund(REFUND) == REFUND
    assert store.refund(replace(REFUND, refund_no="R2", at_ms=4_000)) == REFUND
    for other in (replace(REFUND, amount=100), replace(REFUND, out_no="c" * 32)):
        with expect_refusal("other_content"):
            store.refund(other)
    for amount in (301, 0, -1):
        with expect_refusal("over_refunded"):
            store.refund(replace(REFUND, out_refund_no="d" * 32, refund_no="R3", amount=amount))
    remaining = store.refund(replace(REFUND, out_refund_no="e" * 32, refund_no="R4", amount=300, at_ms=4_000))
    assert store.sum_refunds("fake", TRADE.out_no) == 500
    assert store.list_refunds("fake") == [REFUND, remaining]
    assert store.list_refunds("fake", 4_000, 4_001) == [remaining]
    assert store.find_trade("fake", TRADE.out_no).state == "captured"  # type: ignore[union-attr]


def test_webhook_is_due_until_done(store: PaymentStore) -> None:
    due_webhook = DuePaymentWebhook("N1", "fake", TRADE.out_no, None, "amount", 0)
    store.insert_webhook(due_webhook, 5_000)
    store.insert_webhook(replace(due_webhook, defect=None), 1_000)  # it exists already
    assert store.list_due_webhooks(4_999, 10) == []
    assert store.find_next_due_ms(4_999) == 5_000
    assert store.find_next_due_ms(5_000) is None
    assert store.list_due_webhooks(5_000, 10) == [due_webhook]
    store.mark_attempted("N1", done=False, retry_ms=6_000)
    assert store.list_due_webhooks(5_999, 10) == []
    assert store.list_due_webhooks(6_000, 10) == [replace(due_webhook, attempts=1)]
    assert store.count_open_webhooks() == 1
    store.mark_attempted("N1", done=True, retry_ms=0)
    assert store.list_due_webhooks(9_999, 10) == []
    assert store.count_open_webhooks() == 0


def test_killed_store_loses_nothing(tmp_path: Path) -> None:
    killed = PaymentStore(tmp_path / "payments.sqlite")
    killed.open_trade(TRADE)
    paid = killed.pay("fake", TRADE.out_no, 2_000)
    killed.refund(REFUND)
    with closing(PaymentStore(tmp_path / "payments.sqlite")) as store:  # the first is still open
        assert store.find_trade("fake", TRADE.out_no) == paid
        assert store.list_unannounced("fake") == [(paid, None), (paid, REFUND)]
        store.insert_webhook(DuePaymentWebhook("N1", "fake", TRADE.out_no, None, None, 0), 5_000)
        assert store.list_unannounced("fake") == [(paid, REFUND)]
        store.insert_webhook(DuePaymentWebhook("N2", "fake", TRADE.out_no, REFUND.out_refund_no, None, 0), 5_000)
        assert store.list_unannounced("fake") == []
        assert store.totals("fake") == {
            "captured": 1,
            "captured_amount": 500,
            "refunds": 1,
            "refunds_amount": 200,
            "paid_more_than_once": 0,
            "open_webhooks": 2,
        }
        assert store.totals("other")["captured_amount"] == 0
    killed.close()
