"""Fees and payouts of providers' statements are posted once each; what differs is listed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import pytest

from commerce.kernel.china_time import CHINA
from commerce.kernel.money import Money
from commerce.payments.fund_lines import Payout, list_payouts, read_fee
from commerce.payments.provider_port import StatementLine
from commerce.payments.providers.alipay import fund_statement
from commerce.payments.providers.wechatpay import fund_bill
from commerce.payments.statement_postings import PostedStatement, StatementPostings
from tests.support.payment_shop import PaymentShop

TODAY = datetime.now(UTC).astimezone(CHINA).date()
ALIPAY_FUNDS = """#支付宝账务明细查询
#-----------------------------------------账务明细列表----------------------------------------
账务流水号,业务流水号,商户订单号,商品名称,发生时间,对方账号,收入金额（+元）,支出金额（-元）,账户余额（元）,交易渠道,业务类型,备注
100\t,200\t,T1\t,tea,2026-11-11 10:00:00,a@b.example,300.00,0.00,300.00,支付宝,在线支付,
101\t,200\t,T1\t,,2026-11-11 10:00:01,,0.00,-1.80,298.20,支付宝,收费,
102\t,201\t,\t,,2026-11-11 23:59:59,bank,0.00,-200.00,98.20,支付宝,提现,
103\t,202\t,\t,,2026-11-12 00:00:00,bank,200.00,0.00,298.20,支付宝,提现,returned
#-----------------------------------------账务明细列表结束------------------------------------
"""
WECHAT_FUNDS = (
    "\ufeff记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额（元）,账户结余（元）,资金变更提交申请人,备注,业务凭证号\r\n"
    "`2026-11-11 10:00:00,`P1,`F1,`交易,`交易,`收入,`100.00,`100.00,`system,`tea, green,`P1\r\n"
    "`2026-11-11 11:00:00,`S1,`F2,`提现,`提现,`支出,`90.00,`10.00,`system,`,`S1\r\n"
    "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额\r\n`2,`1,`100.00,`1,`90.00\r\n"
)


async def read_balances(pay: PaymentShop) -> dict[str, int]:
    items = (await pay.shop.ledger.read_trial_balance()).items
    return {item.account: item.balance for item in items if item.balance}


async def paid_line(pay: PaymentShop, amount: int, fee: int | str) -> StatementLine:
    """Have an order paid by Alipay, and return the line of a statement about it."""
    _, [payment] = await pay.add_paid_order(("alipay", amount))
    payment_id = UUID(payment["payment_id"])
    number = await pay.fetch_value("SELECT transaction_id FROM payments WHERE payment_id = $1", payment_id)
    return StatementLine(payment_id, None, Money(amount, "CNY"), number, fee)


async def post_fees(pay: PaymentShop, *lines: StatementLine) -> PostedStatement:
    report = await pay.shop.payments.reconcile("alipay", TODAY, lines)
    postings = StatementPostings(pay.shop.db, pay.shop.clock)
    return await postings.post_fees("alipay", TODAY, lines, report, "staff sam")


async def test_fee_is_posted_once_with_the_day_of_the_provider(pay: PaymentShop) -> None:
    line = await paid_line(pay, 100, 6)
    for new in (1, 0):
        posted = await post_fees(pay, line)
        assert (posted.new, posted.earlier, posted.problems) == (new, 1 - new, [])
    assert await read_balances(pay) == {"fees:alipay": 6, "orders": -100, "provider:alipay": 94}
    [row] = await pay.fetch_rows("SELECT * FROM postings WHERE kind = 'fee'")
    assert (row["booked_on"], row["actor"], row["reference"]) == (TODAY, "staff sam", line.transaction_id)
    again = await post_fees(pay, line._replace(fee=7))
    assert (again.new, again.problems) == (
        0,
        [f"fee alipay {line.payment_id} was posted before with another amount than 0.07 CNY"],
    )


async def test_fee_of_line_that_differs_is_listed_and_not_posted(pay: PaymentShop) -> None:
    good, other, unreadable = [
        await paid_line(pay, 100, fee) for fee in (1, 2, "fee '0.001' is not a whole number of fen")
    ]
    unknown = StatementLine(uuid4(), None, Money(100, "CNY"), "T9", 3)
    posted = await post_fees(pay, good, other._replace(amount=Money(99, "CNY")), unreadable, unknown)
    assert (posted.new, posted.sums) == (1, {"CNY": 1})
    assert posted.problems == [
        "2 fees on lines that differ from our records are not posted",
        f"{unreadable.payment_id}: fee '0.001' is not a whole number of fen",
    ]
    assert (await read_balances(pay))["fees:alipay"] == 1


async def test_payouts_are_posted_to_the_bank_once(pay: PaymentShop) -> None:
    postings = StatementPostings(pay.shop.db, pay.shop.clock)
    payouts = list_payouts(fund_statement.read_fund_lines(ALIPAY_FUNDS), fund_statement.PAYOUT)
    for new in (1, 0):
        posted = await postings.post_payouts("alipay", payouts, "staff sam")
        assert (posted.new, posted.earlier) == (new, 1 - new)
        assert posted.problems == ["103: a payout that came back; post it by hand once the bank has confirmed it"]
    assert await read_balances(pay) == {"bank": 20_000, "provider:alipay": -20_000}
    [row] = await pay.fetch_rows("SELECT booked_on, reference FROM postings WHERE kind = 'payout'")
    assert tuple(row) == (date(2026, 11, 11), "102")


def test_payouts_of_wechat_pay_are_read() -> None:
    payouts = list_payouts(fund_bill.read_fund_lines(WECHAT_FUNDS), fund_bill.PAYOUT)
    assert payouts == [Payout("F2", Money(9_000, "CNY"), date(2026, 11, 11))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no column"),
        (WECHAT_FUNDS.partition("资金流水总笔数")[0], "cut short"),
        (WECHAT_FUNDS.replace("`支出", "`?"), "is neither"),
        (WECHAT_FUNDS.replace("`90.00", "`90.001"), "not a whole number of fen"),
        (WECHAT_FUNDS.replace("2026-11-11 11", "2026-13-11 11"), "month"),
        (WECHAT_FUNDS.replace("`F2", "`"), "资金流水单号"),
        (WECHAT_FUNDS.replace("`F2,", "`F2,`x,"), "values"),
    ],
)
def test_unreadable_bill_of_funds_names_the_reason(text: str, reason: str) -> None:
    problems = [line for line in fund_bill.read_fund_lines(text) if isinstance(line, str)]
    assert len(problems) == 1
    assert reason in problems[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIPAY_FUNDS.replace("账务流水号", "流水号"), "no column"),
        (ALIPAY_FUNDS.replace("列表结束", ""), "cut short"),
        (ALIPAY_FUNDS.replace("-200.00", "-2oo.00"), "is not an amount"),
        (ALIPAY_FUNDS.replace("102\t", ""), "is no 账务流水号"),
    ],
)
def test_unreadable_statement_of_funds_names_the_reason(text: str, reason: str) -> None:
    problems = [line for line in fund_statement.read_fund_lines(text) if isinstance(line, str)]
    assert len(problems) == 1
    assert reason in problems[0]


@pytest.mark.parametrize(
    ("text", "is_refund", "fee"),
    [
        ("0.06000", False, 6),
        ("-0.06", False, 6),
        ("", False, 0),
        ("-0.06000", True, -6),
        ("0.06", True, -6),
        ("0.006", False, "fee '0.006' is not a whole number of fen"),
        ("NaN", False, "fee 'NaN' is not an amount"),
        ("1e99", False, "fee '1e99' is not a whole number of fen"),
        ("six", True, "fee 'six' is not an amount"),
    ],
)
def test_fee_is_charged_on_payments_and_comes_back_with_refunds(text: str, is_refund: bool, fee: int | str) -> None:
    assert read_fee(text, is_refund=is_refund) == fee
