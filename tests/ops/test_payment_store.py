"""The sandbox's books refuse what a provider refuses, and a kill loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from ops.sandbox.payment_store import DueNotice, PaymentStore, PaymentStoreRefusal, SimulatedRefund, SimulatedTrade

TRADE = SimulatedTrade(
    "fake", "a" * 32, "T1", 500, "CNY", "tea", "page", "", "http://localhost/n", "waiting", 1_000, 9_000
)
REFUND = SimulatedRefund("fake", "b" * 32, TRADE.out_no, "R1", 200, "broken", 3_000)


@pytest.fixture
def store() -> Iterator[PaymentStore]:
    with closing(PaymentStore()) as made:
        yield made


def refusal(code: str) -> AbstractContextManager[object]:
    return pytest.raises(PaymentStoreRefusal, check=lambda error: error.code == code)


def test_a_trade_is_entered_once(store: PaymentStore) -> None:
    assert store.open_trade(TRADE) == TRADE
    assert store.open_trade(replace(TRADE, trade_no="T2", subject="other words")) == TRADE
    with refusal("other_content"):
        store.open_trade(replace(TRADE, amount=501))
    assert store.trade("other", TRADE.out_no) is None
    assert store.waiting("fake", 10) == [TRADE]


def test_a_trade_is_paid_once(store: PaymentStore) -> None:
    with refusal("no_trade"):
        store.pay("fake", TRADE.out_no, 2_000)
    store.open_trade(TRADE)
    paid = store.pay("fake", TRADE.out_no, 2_000)
    assert paid == replace(TRADE, state="captured", paid_ms=2_000, times_paid=1)
    with refusal("paid"):
        store.pay("fake", TRADE.out_no, 2_001)
    with refusal("paid"):
        store.open_trade(TRADE)
    assert store.waiting("fake", 10) == []
    assert store.last_paid("fake", 10) == store.trades("fake", 2_000, 2_001) == [paid]
    assert store.trades("fake", 2_001) == []


def test_what_is_closed_or_expired_is_not_paid(store: PaymentStore) -> None:
    with refusal("no_trade"):
        store.close_trade("fake", TRADE.out_no)
    store.open_trade(TRADE)
    with refusal("closed"):
        store.pay("fake", TRADE.out_no, TRADE.expires_ms)
    assert store.close_trade("fake", TRADE.out_no).state == "closed"
    assert store.close_trade("fake", TRADE.out_no).state == "closed"
    with refusal("closed"):
        store.pay("fake", TRADE.out_no, 2_000)
    with refusal("closed"):
        store.open_trade(TRADE)


def test_what_is_paid_is_not_closed(store: PaymentStore) -> None:
    store.open_trade(TRADE)
    store.pay("fake", TRADE.out_no, 2_000)
    with refusal("paid"):
        store.close_trade("fake", TRADE.out_no)


def test_no_more_is_refunded_than_was_paid(store: PaymentStore) -> None:
    with refusal("no_trade"):
        store.refund(REFUND)
    store.open_trade(TRADE)
    with refusal("not_paid"):
        store.refund(REFUND)
    store.pay("fake", TRADE.out_no, 2_000)
    assert store.refund(REFUND) == REFUND
    assert store.refund(replace(REFUND, refund_no="R2", at_ms=4_000)) == REFUND
    for other in (replace(REFUND, amount=100), replace(REFUND, out_no="c" * 32)):
        with refusal("other_content"):
            store.refund(other)
    for amount in (301, 0, -1):
        with refusal("over_refunded"):
            store.refund(replace(REFUND, out_refund_no="d" * 32, refund_no="R3", amount=amount))
    rest = store.refund(replace(REFUND, out_refund_no="e" * 32, refund_no="R4", amount=300, at_ms=4_000))
    assert store.refunded("fake", TRADE.out_no) == 500
    assert store.refunds("fake") == [REFUND, rest]
    assert store.refunds("fake", 4_000, 4_001) == [rest]
    assert store.trade("fake", TRADE.out_no).state == "captured"  # type: ignore[union-attr]


def test_callbacks_are_due_until_they_are_done(store: PaymentStore) -> None:
    notice = DueNotice("N1", "fake", TRADE.out_no, None, "amount", 0)
    store.notify(notice, 5_000)
    store.notify(replace(notice, wrong=None), 1_000)  # it is there already
    assert store.due(4_999, 10) == []
    assert store.next_due_ms(4_999) == 5_000
    assert store.next_due_ms(5_000) is None
    assert store.due(5_000, 10) == [notice]
    store.mark_attempted("N1", done=False, again_ms=6_000)
    assert store.due(5_999, 10) == []
    assert store.due(6_000, 10) == [replace(notice, attempts=1)]
    assert store.open_notices() == 1
    store.mark_attempted("N1", done=True, again_ms=0)
    assert store.due(9_999, 10) == []
    assert store.open_notices() == 0


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    killed = PaymentStore(tmp_path / "books.sqlite")
    killed.open_trade(TRADE)
    paid = killed.pay("fake", TRADE.out_no, 2_000)
    killed.refund(REFUND)
    with closing(PaymentStore(tmp_path / "books.sqlite")) as store:  # beside the first, which was never closed
        assert store.trade("fake", TRADE.out_no) == paid
        assert store.unannounced("fake") == [(paid, None), (paid, REFUND)]
        store.notify(DueNotice("N1", "fake", TRADE.out_no, None, None, 0), 5_000)
        assert store.unannounced("fake") == [(paid, REFUND)]
        store.notify(DueNotice("N2", "fake", TRADE.out_no, REFUND.out_refund_no, None, 0), 5_000)
        assert store.unannounced("fake") == []
        assert store.totals("fake") == {
            "captured": 1,
            "captured_amount": 500,
            "refunds": 1,
            "refunds_amount": 200,
            "paid_more_than_once": 0,
            "open_notices": 2,
        }
        assert store.totals("other")["captured_amount"] == 0
    killed.close()
