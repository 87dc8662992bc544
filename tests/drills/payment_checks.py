"""The end of a payment drill: our books, the providers' own, and what customers were told must tell one story.

The providers' books are read from the sandbox's file, trade by trade: an order's name is in the subject of its trades,
so what a customer was charged is known without asking anything of ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
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
from tests.drills.paying_customers import CREDIT, INITIAL, PROVIDERS, PayingCustomers, SandboxClient
from tests.support.sales import eventually

_POLL_INTERVAL_S = 0.25
_LATE_PAYERS = 60

_REST = """
SELECT (SELECT count(*) FROM orders WHERE sale_id = $1) AS orders,
       (SELECT count(*) FROM orders WHERE sale_id = $1 AND status = 'awaiting_payment') AS awaiting,
       (SELECT count(*) FROM payments WHERE task IS NOT NULL) AS jobs,
       (SELECT count(*) FROM refunds WHERE status = 'pending') AS refunds,
       (SELECT count(*) FROM releases WHERE status = 'pending') AS releases
"""
_STUCK = """
SELECT 'payment' AS kind, method, status, task AS what, attempts, last_error, parked, due_at FROM payments
WHERE task IS NOT NULL
UNION ALL
SELECT 'refund', '', status, reason, attempts, last_error, parked, due_at FROM refunds WHERE status = 'pending'
LIMIT 5
"""
_ORDERS = """
SELECT order_id, status, total_minor, cancel_reason, idempotency_key,
       (SELECT json_agg(json_build_object('id', payment_id, 'method', method, 'amount', amount_minor, 'status', status,
                        'plan_revision', plan_revision, 'transaction', transaction_id) ORDER BY plan_revision, tender_no)::text
        FROM payments WHERE payments.order_id = orders.order_id) AS payments
FROM orders WHERE sale_id = $1
"""
_CREDIT_USED = """
SELECT order_id, sum(amount_minor)::bigint AS amount FROM ledger
WHERE account LIKE 'credit:%' AND order_id IS NOT NULL GROUP BY order_id
"""


class StoredPayment(msgspec.Struct):
    """A payment as our books have it."""

    id: UUID
    method: str
    amount: int
    status: str
    round: int
    transaction: str | None


class StoredOrder(msgspec.Struct):
    """An order as our books have it."""

    order_id: UUID
    status: str
    total: int
    cancel_reason: str | None
    key: str
    payments: list[StoredPayment]

    @property
    def current(self) -> list[StoredPayment]:
        return [one for one in self.payments if one.round == self.payments[-1].round]

    def __str__(self) -> str:
        parts = ", ".join(f"{one.round}: {one.method} {one.amount} {one.status}" for one in self.payments)
        return f"{self.order_id} {self.status} {self.cancel_reason or ''} of {self.total} ({parts})"


class ProviderRecords:
    """What the providers have: trades that were paid, and refunds, by our numbers."""

    def __init__(self, stack: LocalStack) -> None:
        with closing(PaymentStore(stack.home / "sandbox" / "payments.sqlite")) as payment_store:
            self.trades: dict[UUID, SimulatedTrade] = {
                UUID(t.out_no): t for name in PROVIDERS for t in payment_store.list_paid_trades(name)
            }
            self.refunds: dict[UUID, SimulatedRefund] = {
                UUID(r.out_refund_no): r for name in PROVIDERS for r in payment_store.list_refunds(name)
            }
        self.back: Counter[UUID] = Counter()
        for refund in self.refunds.values():
            self.back[UUID(refund.out_no)] += refund.amount
        self.by_order: dict[UUID, list[UUID]] = defaultdict(list)
        for number, trade in self.trades.items():
            self.by_order[UUID(trade.subject.removeprefix("Order "))].append(number)

    def left(self, number: UUID) -> int:
        """What was charged and has not gone back."""
        return self.trades[number].amount - self.back[number]


async def wait_until_idle(stack: LocalStack, payers: PayingCustomers, timeout_s: float) -> None:
    """Wait until every order is stored and decided, and nothing is left to be done."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    wanted = {"orders": len(payers.record.promised()), "awaiting": 0, "jobs": 0, "refunds": 0, "releases": 0}
    async with open_cli_services(stack.settings()) as shop:
        while True:
            async with shop.db.connection() as connection:
                [row] = await connection.fetch(_REST, payers.record.sale_id)
                now = dict(row)
                if now == wanted:
                    return
                if asyncio.get_running_loop().time() > deadline:
                    stuck = [dict(row) for row in await connection.fetch(_STUCK)]
                    raise AssertionError(f"not at rest within {timeout_s} s: {now}, wanted {wanted}; {stuck}")
            await asyncio.sleep(_POLL_INTERVAL_S)


async def pay_some_late(stack: LocalStack, payers: PayingCustomers, timeout_s: float) -> int:
    """Orders that were cancelled are paid after all; who had only been too slow gets the goods, the others the money.

    The callbacks are no longer lost: of money for a payment that is closed nothing else tells. Gives how many were.
    """
    sandbox = SandboxClient(stack)
    await sandbox.behave()
    async with open_cli_services(stack.settings()) as shop:
        orders = await _orders(shop, payers)
        closed = [
            order
            for order in orders.values()
            if order.status == "cancelled" and len(order.current) == 1 and order.current[0].status == "closed"
        ]
        known = [order for order in closed if order.current[0].method in PROVIDERS][:_LATE_PAYERS]
        late = {order.order_id: order.current[0] for order in known if await _knows(stack, order.current[0])}
        for one in late.values():
            await sandbox.pay_late(one.method, one.id.hex)

        async def seen() -> bool:
            now = await _orders(shop, payers)
            return all(now[id_].current[0].status == "captured" for id_ in late)

        await eventually(seen, timeout_s)
        await wait_until_idle(stack, payers, timeout_s)
        now = await _orders(shop, payers)
    wrong = [
        str(now[id_])
        for id_ in late
        if now[id_].status != ("paid" if orders[id_].cancel_reason == "expired" else "cancelled")
    ]
    assert not wrong, f"paid late and not as it should be, {format_examples(wrong)}"
    return len(late)


async def _knows(stack: LocalStack, paid: StoredPayment) -> bool:
    with closing(PaymentStore(stack.home / "sandbox" / "payments.sqlite")) as payment_store:
        return payment_store.find_trade(paid.method, paid.id.hex) is not None


async def check_payments(stack: LocalStack, payers: PayingCustomers) -> tuple[SaleAudit, Counter[str]]:
    """Compare everything with everything; gives the audit, and how many orders ended how."""
    async with open_cli_services(stack.settings()) as shop:
        orders = await _orders(shop, payers)
        ends = Counter(order.status for order in orders.values())
        assert set(ends) <= {"paid", "confirmed", "cancelled"}, ends
        for order in orders.values():
            wish = payers.customers[order.key].wish
            assert not wish.cancelled or order.status == "cancelled", f"{order}: its customer was told it is cancelled"
            wish.cancelled = order.status == "cancelled"
        banks = ProviderRecords(stack)
        await _check_trades(shop, orders, banks)
        await _check_sums(shop, banks, await SandboxClient(stack).totals())
        used = await _credit_used(shop)
    faults = [fault for order in orders.values() if (fault := _fault(order, payers, banks, used))]
    assert not faults, format_examples(faults)
    return await check_final_state(stack, payers.record, INITIAL, {}), ends


async def _orders(shop: CliServices, payers: PayingCustomers) -> dict[UUID, StoredOrder]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_ORDERS, payers.record.sale_id)
    return {
        row["order_id"]: StoredOrder(
            row["order_id"],
            row["status"],
            row["total_minor"],
            row["cancel_reason"],
            row["idempotency_key"],
            msgspec.json.decode(row["payments"], type=list[StoredPayment]) if row["payments"] else [],
        )
        for row in rows
    }


async def _check_trades(shop: CliServices, orders: Mapping[UUID, StoredOrder], banks: ProviderRecords) -> None:
    """Each trade that was paid is a payment of ours that is captured, to the unit, and the other way round; so with
    refunds, of which each went out under the one number that we know."""
    ours = {
        one.id: (one.method, one.amount, one.transaction, order.order_id)
        for order in orders.values()
        for one in order.payments
        if one.status == "captured" and one.method in PROVIDERS
    }
    order_of = {number: order_id for order_id, numbers in banks.by_order.items() for number in numbers}
    theirs = {id_: (t.provider, t.amount, t.trade_no, order_of[id_]) for id_, t in banks.trades.items()}
    _same("trades", ours, theirs)
    twice = [str(trade) for trade in banks.trades.values() if trade.times_paid > 1]
    assert not twice, f"paid twice, {format_examples(twice)}"
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT refund_id, payment_id, refunds.amount_minor FROM refunds JOIN payments USING (payment_id) "
            "WHERE method = ANY($1) AND refunds.status = 'done'",
            PROVIDERS,
        )
    _same(
        "refunds",
        {row["refund_id"]: (row["payment_id"], row["amount_minor"]) for row in rows},
        {id_: (UUID(refund.out_no), refund.amount) for id_, refund in banks.refunds.items()},
    )


def _same(what: str, ours: Mapping[UUID, Any], theirs: Mapping[UUID, Any]) -> None:
    other = [
        f"{id_} is {ours.get(id_)} with us and {theirs.get(id_)} with them"
        for id_ in {*ours, *theirs}
        if ours.get(id_) != theirs.get(id_)
    ]
    assert not other, f"{what} that are not the same, {format_examples(other)}"


async def _check_sums(shop: CliServices, banks: ProviderRecords, books: Mapping[str, Mapping[str, int]]) -> None:
    """The ledger adds up to nothing, and its accounts to what providers and customers have."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT account, sum(amount_minor)::bigint AS amount FROM ledger GROUP BY account"
        )
        wallets = await connection.fetchval("SELECT coalesce(sum(balance_minor), 0)::bigint FROM credit_accounts")
        gifts = await connection.fetchval("SELECT count(*) FROM credit_accounts WHERE user_id LIKE 'rich%'")
    accounts = {row["account"]: row["amount"] for row in rows}
    assert sum(accounts.values()) == 0, f"the ledger does not add up: {accounts}"
    for name in PROVIDERS:
        theirs = books[name]
        kept = theirs["captured_amount"] - theirs["refunds_amount"]
        assert theirs["paid_more_than_once"] == 0, theirs
        assert accounts[f"provider:{name}"] == kept, f"{name}: {accounts} with us, {theirs} with them"
        paid = sum(trade.amount for trade in banks.trades.values() if trade.provider == name)
        assert paid == theirs["captured_amount"], f"{name}: {paid} in its trades, {theirs}"
    credit = sum(amount for account, amount in accounts.items() if account.startswith("credit:"))
    assert wallets == -credit, f"{wallets} in the wallets, {credit} in the ledger"
    assert accounts["shop:credit"] == gifts * CREDIT, accounts
    taken = sum(accounts[f"provider:{name}"] for name in PROVIDERS) + gifts * CREDIT - wallets
    assert taken == -accounts["orders"], f"{taken} was taken of customers: {accounts}"


async def _credit_used(shop: CliServices) -> Counter[UUID]:
    async with shop.db.connection() as connection:
        return Counter({row["order_id"]: row["amount"] for row in await connection.fetch(_CREDIT_USED)})


def _fault(order: StoredOrder, payers: PayingCustomers, banks: ProviderRecords, used: Counter[UUID]) -> str | None:
    """What is wrong with the money of one order, in words; None if nothing is."""
    numbers = banks.by_order.get(order.order_id, [])
    charged = sum(banks.left(number) for number in numbers) + used[order.order_id]
    cash = sum(one.amount for one in order.current if one.status == "authorised") if order.payments else 0
    halves = [number for number in numbers if banks.left(number) not in (0, banks.trades[number].amount)]
    if halves or charged + cash > order.total or charged < 0:
        return f"{order}: charged {charged}, {len(halves)} trades given back in part"
    if len([number for number in numbers if banks.left(number)]) > 1:
        return f"{order}: charged more than once"
    if order.status == "cancelled":
        if charged or cash:
            return f"{order}: cancelled, and {charged} were kept"
        if order.cancel_reason == "expired" and order.payments and all(o.status == "captured" for o in order.current):
            return f"{order}: all of it was paid, there were goods enough, and it is cancelled"
    elif charged + cash != order.total or (order.status == "confirmed") != bool(cash):
        return f"{order}: charged {charged}, {cash} to be collected"
    customer = payers.customers[order.key]
    shown = [parts for parts, _ in customer.rounds]
    if order.payments and [(o.method, o.amount) for o in order.current] not in [
        [(part["method"], part["amount"]) for part in parts] for parts in shown
    ]:
        return f"{order}: its customer was shown {shown}"
    return None if order.payments else f"{order}: its customer has paid, and there are no payments"


async def summarise_webhooks(stack: LocalStack) -> str:
    """How often which misbehaviour struck, and what our side said of the callbacks."""
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT split_part(result, ':', 1) AS result, count(*) FROM payment_webhooks GROUP BY 1 ORDER BY 1"
        )
        rounds = await connection.fetchval("SELECT count(*) FROM payments WHERE plan_revision > 1")
        retaken = await connection.fetchval(
            "SELECT count(*) FROM releases WHERE reacquires IS NOT NULL AND status = 'applied'"
        )
        refunds = await connection.fetch(
            "SELECT method, count(*) FROM refunds JOIN payments USING (payment_id) GROUP BY 1 ORDER BY 1"
        )
    with closing(sqlite3.connect(f"file:{stack.home}/sandbox/payments.sqlite?mode=ro", uri=True)) as file:
        wrong = file.execute("SELECT defect, count(*), sum(attempts) FROM webhooks GROUP BY defect").fetchall()
        never = file.execute("SELECT count(*) FROM webhooks WHERE done = 1 AND attempts = 1").fetchone()[0]
    notices = ", ".join(f"{row['count']} {row['result']}" for row in rows)
    sent = ", ".join(f"{count} {what or 'right'} ({attempts} attempts)" for what, count, attempts in wrong)
    given = ", ".join(f"{row['count']} {row['method']}" for row in refunds)
    return (
        f"callbacks planned: {sent}, {never} done at once; stored: {notices}; refunds: {given}; "
        f"{rounds} payments of second rounds, {retaken} orders taken again"
    )
