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
def bank() -> Iterator[PaymentStore]:
    with closing(PaymentStore()) as made:
        yield made


def refusal(code: str) -> AbstractContextManager[object]:
    return pytest.raises(PaymentStoreRefusal, check=lambda error: error.code == code)


def test_a_trade_is_entered_once(bank: PaymentStore) -> None:
    assert bank.open_trade(TRADE) == TRADE
    assert bank.open_trade(replace(TRADE, trade_no="T2", subject="other words")) == TRADE
    with refusal("other_content"):
        bank.open_trade(replace(TRADE, amount=501))
    assert bank.trade("other", TRADE.out_no) is None
    assert bank.waiting("fake", 10) == [TRADE]


def test_a_trade_is_paid_once(bank: PaymentStore) -> None:
    with refusal("no_trade"):
        bank.pay("fake", TRADE.out_no, 2_000)
    bank.open_trade(TRADE)
    paid = bank.pay("fake", TRADE.out_no, 2_000)
    assert paid == replace(TRADE, state="captured", paid_ms=2_000, times_paid=1)
    with refusal("paid"):
        bank.pay("fake", TRADE.out_no, 2_001)
    with refusal("paid"):
        bank.open_trade(TRADE)
    assert bank.waiting("fake", 10) == []
    assert bank.last_paid("fake", 10) == bank.trades("fake", 2_000, 2_001) == [paid]
    assert bank.trades("fake", 2_001) == []


def test_what_is_closed_or_expired_is_not_paid(bank: PaymentStore) -> None:
    with refusal("no_trade"):
        bank.close_trade("fake", TRADE.out_no)
    bank.open_trade(TRADE)
    with refusal("closed"):
        bank.pay("fake", TRADE.out_no, TRADE.expires_ms)
    assert bank.close_trade("fake", TRADE.out_no).state == "closed"
    assert bank.close_trade("fake", TRADE.out_no).state == "closed"
    with refusal("closed"):
        bank.pay("fake", TRADE.out_no, 2_000)
    with refusal("closed"):
        bank.open_trade(TRADE)


def test_what_is_paid_is_not_closed(bank: PaymentStore) -> None:
    bank.open_trade(TRADE)
    bank.pay("fake", TRADE.out_no, 2_000)
    with refusal("paid"):
        bank.close_trade("fake", TRADE.out_no)


def test_no_more_is_refunded_than_was_paid(bank: PaymentStore) -> None:
    with refusal("no_trade"):
        bank.refund(REFUND)
    bank.open_trade(TRADE)
    with refusal("not_paid"):
        bank.refund(REFUND)
    bank.pay("fake", TRADE.out_no, 2_000)
    assert bank.refund(REFUND) == REFUND
    assert bank.refund(replace(REFUND, refund_no="R2", at_ms=4_000)) == REFUND
    for other in (replace(REFUND, amount=100), replace(REFUND, out_no="c" * 32)):
        with refusal("other_content"):
            bank.refund(other)
    for amount in (301, 0, -1):
        with refusal("over_refunded"):
            bank.refund(replace(REFUND, out_refund_no="d" * 32, refund_no="R3", amount=amount))
    rest = bank.refund(replace(REFUND, out_refund_no="e" * 32, refund_no="R4", amount=300, at_ms=4_000))
    assert bank.refunded("fake", TRADE.out_no) == 500
    assert bank.refunds("fake") == [REFUND, rest]
    assert bank.refunds("fake", 4_000, 4_001) == [rest]
    assert bank.trade("fake", TRADE.out_no).state == "captured"  # type: ignore[union-attr]


def test_callbacks_are_due_until_they_are_done(bank: PaymentStore) -> None:
    notice = DueNotice("N1", "fake", TRADE.out_no, None, "amount", 0)
    bank.notify(notice, 5_000)
    bank.notify(replace(notice, wrong=None), 1_000)  # it is there already
    assert bank.due(4_999, 10) == []
    assert bank.next_due_ms(4_999) == 5_000
    assert bank.next_due_ms(5_000) is None
    assert bank.due(5_000, 10) == [notice]
    bank.mark_attempted("N1", done=False, again_ms=6_000)
    assert bank.due(5_999, 10) == []
    assert bank.due(6_000, 10) == [replace(notice, attempts=1)]
    assert bank.open_notices() == 1
    bank.mark_attempted("N1", done=True, again_ms=0)
    assert bank.due(9_999, 10) == []
    assert bank.open_notices() == 0


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    killed = PaymentStore(tmp_path / "books.sqlite")
    killed.open_trade(TRADE)
    paid = killed.pay("fake", TRADE.out_no, 2_000)
    killed.refund(REFUND)
    with closing(PaymentStore(tmp_path / "books.sqlite")) as bank:  # beside the first, which was never closed
        assert bank.trade("fake", TRADE.out_no) == paid
        assert bank.unannounced("fake") == [(paid, None), (paid, REFUND)]
        bank.notify(DueNotice("N1", "fake", TRADE.out_no, None, None, 0), 5_000)
        assert bank.unannounced("fake") == [(paid, REFUND)]
        bank.notify(DueNotice("N2", "fake", TRADE.out_no, REFUND.out_refund_no, None, 0), 5_000)
        assert bank.unannounced("fake") == []
        assert bank.totals("fake") == {
            "captured": 1,
            "captured_amount": 500,
            "refunds": 1,
            "refunds_amount": 200,
            "paid_more_than_once": 0,
            "open_notices": 2,
        }
        assert bank.totals("other")["captured_amount"] == 0
    killed.close()
