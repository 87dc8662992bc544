"""The end of a payment drill: our records, the providers' and the replies must agree.

The records of the providers are read from the sandbox's file, trade by trade. The subject of a trade names its order,
so that the charges of a customer are known without our records.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any
from uuid import UUID

import msgspec

from commerce.audit.model import SaleAudit
from ops.sandbox.payment_store import PaymentStore, SimulatedRefund, SimulatedTrade
from ops.services import CliServices, open_cli_services
from tests.drills.client_record import format_examples
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import CREDIT_MINOR, INITIAL, PROVIDERS, PayingCustomers, SandboxClient
from tests.support.sales import eventually

_POLL_INTERVAL_S = 0.25
_MAX_LATE_PAYMENTS = 60

_COUNT_UNFINISHED = """
SELECT (SELECT count(*) FROM orders WHERE sale_id = $1) AS orders,
       (SELECT count(*) FROM orders WHERE sale_id = $1 AND status = 'awaiting_payment') AS awaiting,
       (SELECT count(*) FROM jobs WHERE queue = 'payments') AS jobs,
       (SELECT count(*) FROM refunds WHERE status = 'pending') AS refunds,
       (SELECT count(*) FROM releases WHERE status = 'pending') AS releases
"""
_LIST_UNFINISHED = """
SELECT queue, kind, system, attempts, last_error, parked, due_at FROM jobs
WHERE queue IN ('payments', 'refunds') LIMIT 5
"""
_LIST_ORDERS = """
SELECT order_id, status, total_minor, cancel_reason, idempotency_key,
       (SELECT json_agg(json_build_object('payment_id', payment_id, 'method', method, 'amount_minor', amount_minor,
                        'status', status, 'plan_revision', plan_revision, 'transaction_id', transaction_id)
                        ORDER BY plan_revision, tender_no)::text
        FROM payments WHERE payments.order_id = orders.order_id) AS payments
FROM orders WHERE sale_id = $1
"""
_SUM_USED_CREDIT = """
SELECT order_id, sum(amount_minor)::bigint AS amount_minor FROM ledger
WHERE account LIKE 'credit:%' AND order_id IS NOT NULL GROUP BY order_id
"""


class StoredPayment(msgspec.Struct):
    """A payment in our records."""

    payment_id: UUID
    method: str
    amount_minor: int
    status: str
    plan_revision: int
    transaction_id: str | None


class StoredOrder(msgspec.Struct):
    """An order in our records."""

    order_id: UUID
    status: str
    total_minor: int
    cancel_reason: str | None
    key: str
    payments: list[StoredPayment]

    @property
    def current(self) -> list[StoredPayment]:
        last = self.payments[-1].plan_revision
        return [payment for payment in self.payments if payment.plan_revision == last]

    def __str__(self) -> str:
        payments = ", ".join(
            f"{payment.plan_revision}: {payment.method} {payment.amount_minor} {payment.status}"
            for payment in self.payments
        )
        return f"{self.order_id} {self.status} {self.cancel_reason or ''} of {self.total_minor} ({payments})"


class ProviderRecords:
    """Paid trades and refunds of the providers by our ids, and the ids of paid payments by order."""

    def __init__(self, stack: LocalStack, orders: Iterable[StoredOrder]) -> None:
        with closing(PaymentStore(stack.home / "sandbox" / "payments.sqlite")) as payment_store:
            self.trades: dict[UUID, SimulatedTrade] = {
                UUID(trade.out_no): trade for name in PROVIDERS for trade in payment_store.list_paid_trades(name)
            }
            self.refunds: dict[UUID, SimulatedRefund] = {
                UUID(refund.out_refund_no): refund for name in PROVIDERS for refund in payment_store.list_refunds(name)
            }
        self.refunded: Counter[UUID] = Counter()
        for refund in self.refunds.values():
            self.refunded[UUID(refund.out_no)] += refund.amount
        self.by_order = {
            order.order_id: [payment.payment_id for payment in order.payments if payment.payment_id in self.trades]
            for order in orders
        }

    def kept_minor(self, payment_id: UUID) -> int:
        """Return the amount that was charged and not refunded."""
        return self.trades[payment_id].amount - self.refunded[payment_id]


async def wait_until_idle(stack: LocalStack, customers: PayingCustomers, timeout_s: float) -> None:
    """Wait until every order is stored and has a final status, and no job is left."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    orders = len(customers.record.promised_orders())
    expected = {"orders": orders, "awaiting": 0, "jobs": 0, "refunds": 0, "releases": 0}
    async with open_cli_services(stack.settings()) as shop:
        while True:
            async with shop.db.connection() as connection:
                [row] = await connection.fetch(_COUNT_UNFINISHED, customers.record.sale_id)
                counts = dict(row)
                if counts == expected:
                    return
                if asyncio.get_running_loop().time() > deadline:
                    jobs = [dict(row) for row in await connection.fetch(_LIST_UNFINISHED)]
                    raise AssertionError(f"not idle within {timeout_s} s: {counts}, expected {expected}; {jobs}")
            await asyncio.sleep(_POLL_INTERVAL_S)


async def pay_some_late(stack: LocalStack, customers: PayingCustomers, timeout_s: float) -> int:
    """Pay some cancelled orders late, and return how many.

    Orders that had expired must become paid, the others must be refunded. Webhooks are no longer dropped, since a late
    capture of a closed payment is known from its webhook alone.
    """
    sandbox = SandboxClient(stack)
    await sandbox.clear_faults()
    async with open_cli_services(stack.settings()) as shop:
        orders = await _list_orders(shop, customers)
        closed = [
            order
            for order in orders.values()
            if order.status == "cancelled" and len(order.current) == 1 and order.current[0].status == "closed"
        ]
        at_provider = [order for order in closed if order.current[0].method in PROVIDERS][:_MAX_LATE_PAYMENTS]
        late = {order.order_id: order.current[0] for order in at_provider if _has_trade(stack, order.current[0])}
        for payment in late.values():
            await sandbox.pay_late(payment.method, payment.payment_id.hex)

        async def are_captured() -> bool:
            current = await _list_orders(shop, customers)
            return all(current[id_].current[0].status == "captured" for id_ in late)

        await eventually(are_captured, timeout_s)
        await wait_until_idle(stack, customers, timeout_s)
        current = await _list_orders(shop, customers)
    wrong = [
        str(current[id_])
        for id_ in late
        if current[id_].status != ("paid" if orders[id_].cancel_reason == "expired" else "cancelled")
    ]
    assert not wrong, f"wrong status after a late payment, {format_examples(wrong)}"
    return len(late)


def _has_trade(stack: LocalStack, payment: StoredPayment) -> bool:
    with closing(PaymentStore(stack.home / "sandbox" / "payments.sqlite")) as payment_store:
        return payment_store.find_trade(payment.method, payment.payment_id.hex) is not None


async def check_payments(stack: LocalStack, customers: PayingCustomers) -> tuple[SaleAudit, Counter[str]]:
    """Compare all records. Returns the audit and the number of orders by status."""
    async with open_cli_services(stack.settings()) as shop:
        orders = await _list_orders(shop, customers)
        statuses = Counter(order.status for order in orders.values())
        assert set(statuses) <= {"paid", "confirmed", "cancelled"}, statuses
        for order in orders.values():
            intended = customers.by_key[order.key].intended
            assert not intended.is_cancelled or order.status == "cancelled", f"{order}: its cancellation got a 200"
            intended.is_cancelled = order.status == "cancelled"
        provider_records = ProviderRecords(stack, orders.values())
        await _check_trades(shop, orders, provider_records)
        await _check_sums(shop, provider_records, await SandboxClient(stack).fetch_totals())
        used_credit = await _sum_used_credit(shop)
    errors = [_find_error(order, customers, provider_records, used_credit) for order in orders.values()]
    assert not any(errors), format_examples(filter(None, errors))
    return await check_final_state(stack, customers.record, INITIAL, {}), statuses


async def _list_orders(shop: CliServices, customers: PayingCustomers) -> dict[UUID, StoredOrder]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_LIST_ORDERS, customers.record.sale_id)
    return {
        row["order_id"]: StoredOrder(
            order_id=row["order_id"],
            status=row["status"],
            total_minor=row["total_minor"],
            cancel_reason=row["cancel_reason"],
            key=row["idempotency_key"],
            payments=msgspec.json.decode(row["payments"], type=list[StoredPayment]) if row["payments"] else [],
        )
        for row in rows
    }


async def _check_trades(
    shop: CliServices, orders: Mapping[UUID, StoredOrder], provider_records: ProviderRecords
) -> None:
    """Check that paid trades equal our captures, and the providers' refunds our completed ones."""
    captured = {
        payment.payment_id: (payment.method, payment.amount_minor, payment.transaction_id, order.order_id)
        for order in orders.values()
        for payment in order.payments
        if payment.status == "captured" and payment.method in PROVIDERS
    }
    order_ids = {id_: order_id for order_id, ids in provider_records.by_order.items() for id_ in ids}
    trades = provider_records.trades
    paid = {id_: (trade.provider, trade.amount, trade.trade_no, order_ids.get(id_)) for id_, trade in trades.items()}
    _check_equal("trades", captured, paid)
    twice = [str(trade) for trade in trades.values() if trade.times_paid > 1]
    assert not twice, f"paid twice, {format_examples(twice)}"
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT refund_id, payment_id, refunds.amount_minor FROM refunds JOIN payments USING (payment_id) "
            "WHERE method = ANY($1) AND refunds.status = 'done'",
            PROVIDERS,
        )
    _check_equal(
        "refunds",
        {row["refund_id"]: (row["payment_id"], row["amount_minor"]) for row in rows},
        {id_: (UUID(refund.out_no), refund.amount) for id_, refund in provider_records.refunds.items()},
    )


def _check_equal(name: str, recorded: Mapping[UUID, Any], at_provider: Mapping[UUID, Any]) -> None:
    different = [
        f"{id_} is {recorded.get(id_)} here and {at_provider.get(id_)} at the provider"
        for id_ in {*recorded, *at_provider}
        if recorded.get(id_) != at_provider.get(id_)
    ]
    assert not different, f"{name} that differ, {format_examples(different)}"


async def _check_sums(
    shop: CliServices, provider_records: ProviderRecords, totals: Mapping[str, Mapping[str, int]]
) -> None:
    """Check that the ledger sums to zero, and its accounts to the money of providers and customers."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT account, sum(amount_minor)::bigint AS amount_minor FROM ledger GROUP BY account"
        )
        balances = await connection.fetchval("SELECT coalesce(sum(balance_minor), 0)::bigint FROM credit_accounts")
        grants = await connection.fetchval("SELECT count(*) FROM credit_accounts WHERE user_id LIKE 'rich%'")
    accounts = {row["account"]: row["amount_minor"] for row in rows}
    assert sum(accounts.values()) == 0, f"the ledger does not sum to zero: {accounts}"
    for name in PROVIDERS:
        provider_totals = totals[name]
        kept = provider_totals["captured_amount"] - provider_totals["refunds_amount"]
        assert provider_totals["paid_more_than_once"] == 0, provider_totals
        assert accounts[f"provider:{name}"] == kept, f"{name}: {accounts} here, {provider_totals} at the provider"
        paid = sum(trade.amount for trade in provider_records.trades.values() if trade.provider == name)
        assert paid == provider_totals["captured_amount"], f"{name}: {paid} in its trades, {provider_totals}"
    credit = sum(amount_minor for account, amount_minor in accounts.items() if account.startswith("credit:"))
    assert balances == -credit, f"{balances} in the credit accounts, {credit} in the ledger"
    assert accounts["shop:credit"] == grants * CREDIT_MINOR, accounts
    captured = sum(accounts[f"provider:{name}"] for name in PROVIDERS) + grants * CREDIT_MINOR - balances
    assert captured == -accounts["orders"], f"{captured} was captured from customers: {accounts}"


async def _sum_used_credit(shop: CliServices) -> Counter[UUID]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_SUM_USED_CREDIT)
    return Counter({row["order_id"]: row["amount_minor"] for row in rows})


def _find_error(
    order: StoredOrder, customers: PayingCustomers, provider_records: ProviderRecords, used_credit: Counter[UUID]
) -> str | None:
    """Describe an error in the money of one order. Returns None if there is none."""
    kept = {id_: provider_records.kept_minor(id_) for id_ in provider_records.by_order.get(order.order_id, [])}
    charged = sum(kept.values()) + used_credit[order.order_id]
    cash = 0
    if order.payments:
        cash = sum(payment.amount_minor for payment in order.current if payment.status == "authorised")
    in_part = [id_ for id_, amount in kept.items() if amount not in (0, provider_records.trades[id_].amount)]
    if in_part or charged + cash > order.total_minor or charged < 0:
        return f"{order}: charged {charged}, {len(in_part)} trades refunded in part"
    if sum(amount != 0 for amount in kept.values()) > 1:
        return f"{order}: charged more than once"
    if order.status == "cancelled":
        if charged or cash:
            return f"{order}: cancelled, and {charged} were kept"
        is_paid = order.payments and all(payment.status == "captured" for payment in order.current)
        if order.cancel_reason == "expired" and is_paid:
            return f"{order}: paid in full with stock available, and cancelled"
    elif charged + cash != order.total_minor or (order.status == "confirmed") != bool(cash):
        return f"{order}: charged {charged}, {cash} to be collected"
    if not order.payments:
        return f"{order}: its customer has paid, and there are no payments"
    plans = [[(tender["method"], tender["amount"]) for tender in plan] for plan, _ in customers.by_key[order.key].plans]
    if [(payment.method, payment.amount_minor) for payment in order.current] not in plans:
        return f"{order}: the replies to its customer show {plans}"
    return None


async def summarise_webhooks(stack: LocalStack) -> str:
    """Format counts of sent webhooks by defect, stored webhooks by result, refunds and late payments."""
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        webhooks = await connection.fetch(
            "SELECT split_part(result, ':', 1) AS result, count(*) FROM payment_webhooks GROUP BY 1 ORDER BY 1"
        )
        replaced = await connection.fetchval("SELECT count(*) FROM payments WHERE plan_revision > 1")
        reacquired = await connection.fetchval(
            "SELECT count(*) FROM releases WHERE reacquires IS NOT NULL AND status = 'applied'"
        )
        refunds = await connection.fetch(
            "SELECT method, count(*) FROM refunds JOIN payments USING (payment_id) GROUP BY 1 ORDER BY 1"
        )
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/payments.sqlite?mode=ro", uri=True)) as file:
        defects = file.execute("SELECT defect, count(*), sum(attempts) FROM webhooks GROUP BY defect").fetchall()
        first_try = file.execute("SELECT count(*) FROM webhooks WHERE done = 1 AND attempts = 1").fetchone()[0]
    sent = ", ".join(f"{count} {defect or 'correct'} ({attempts} attempts)" for defect, count, attempts in defects)
    stored = ", ".join(f"{row['count']} {row['result']}" for row in webhooks)
    refunded = ", ".join(f"{row['count']} {row['method']}" for row in refunds)
    return (
        f"webhooks sent: {sent}, {first_try} done at the first attempt; stored: {stored}; refunds: {refunded}; "
        f"{replaced} payments of later plan revisions, {reacquired} orders reacquired"
    )
