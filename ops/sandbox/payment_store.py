"""SQLite store of simulated trades, refunds and webhooks, which survives a kill.

Amounts are minor units. `out_no` and `out_refund_no` are the merchant's numbers (a payment's id as 32 hexadecimal
digits), `trade_no` and `refund_no` the provider's.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    provider TEXT NOT NULL, out_no TEXT NOT NULL, trade_no TEXT NOT NULL UNIQUE, amount INTEGER NOT NULL,
    currency TEXT NOT NULL, subject TEXT NOT NULL, flow TEXT NOT NULL, payer TEXT NOT NULL, notify_url TEXT NOT NULL,
    state TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, paid_ms INTEGER,
    times_paid INTEGER NOT NULL DEFAULT 0, code_expires_ms INTEGER NOT NULL DEFAULT 9000000000000000000,
    PRIMARY KEY (provider, out_no));
CREATE TABLE IF NOT EXISTS refunds (
    provider TEXT NOT NULL, out_refund_no TEXT NOT NULL, out_no TEXT NOT NULL, refund_no TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL, outcome TEXT NOT NULL DEFAULT 'done',
    due_ms INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (provider, out_refund_no));
CREATE TABLE IF NOT EXISTS webhooks (
    webhook_id TEXT PRIMARY KEY, provider TEXT NOT NULL, out_no TEXT NOT NULL, out_refund_no TEXT,
    due_ms INTEGER NOT NULL, defect TEXT, attempts INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (due_ms) WHERE done = 0;
CREATE INDEX IF NOT EXISTS webhooks_by_trade ON webhooks (provider, out_no);
CREATE INDEX IF NOT EXISTS trades_waiting ON trades (provider, created_ms) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS trades_paid ON trades (provider, paid_ms) WHERE paid_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS refunds_by_trade ON refunds (provider, out_no);
"""


_CONTENT = ("amount", "currency", "subject", "payer", "flow")
"""fields that a repeated request for a trade may not change"""


class PaymentStoreRefusal(Exception):
    """The provider refuses.

    `code` is no_trade, not_paid, closed, code_expired, paid, over_refunded, other_content, no_balance, too_often,
    account_closed or system_error.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class SimulatedTrade:
    """A trade that a merchant requested.

    `state` is waiting, captured or closed; `flow` is a `PaymentFlow`. The latest code or page of the trade is dead from
    `code_expires_ms` on; a new request for the same trade returns a new one.
    """

    provider: str
    out_no: str
    trade_no: str
    amount: int
    currency: str
    subject: str
    flow: str
    payer: str
    notify_url: str
    state: str
    created_ms: int
    expires_ms: int
    paid_ms: int | None = None
    times_paid: int = 0
    code_expires_ms: int = 9 * 10**18


@dataclass(frozen=True, slots=True)
class SimulatedRefund:
    """A refund of a trade, in whole or in part, accepted at `at_ms`.

    From `due_ms` on it is done, closed or abnormal, which is its `outcome`."""

    provider: str
    out_refund_no: str
    out_no: str
    refund_no: str
    amount: int
    reason: str
    at_ms: int
    outcome: str = "done"
    due_ms: int = 0

    def state_at(self, now_ms: int) -> str:
        """Return processing, done, closed or abnormal."""
        return self.outcome if now_ms >= self.due_ms else "processing"


@dataclass(frozen=True, slots=True)
class DuePaymentWebhook:
    """A webhook to be sent about a trade or its refund; `defect` is signature, amount or None."""

    webhook_id: str
    provider: str
    out_no: str
    out_refund_no: str | None
    defect: str | None
    attempts: int


class PaymentStore:
    """Trades, refunds and webhooks of the providers. Each method is one transaction."""

    def __init__(self, file: Path | str = ":memory:") -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _SCHEMA)
        if "code_expires_ms" not in [row[1] for row in self._db.execute("PRAGMA table_info(trades)")]:
            # The file is of a version whose codes never died.
            self._db.execute(f"ALTER TABLE trades ADD COLUMN code_expires_ms INTEGER NOT NULL DEFAULT {9 * 10**18}")
        if "outcome" not in [row[1] for row in self._db.execute("PRAGMA table_info(refunds)")]:
            self._db.execute("ALTER TABLE refunds ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done'")
            self._db.execute("ALTER TABLE refunds ADD COLUMN due_ms INTEGER NOT NULL DEFAULT 0")

    def close(self) -> None:
        self._db.close()

    def find_trade(self, provider: str, out_no: str) -> SimulatedTrade | None:
        row = self._db.execute("SELECT * FROM trades WHERE provider = ? AND out_no = ?", (provider, out_no)).fetchone()
        return SimulatedTrade(*row) if row else None

    def open_trade(self, trade: SimulatedTrade) -> SimulatedTrade:
        """Store a trade and return it; if its number and content were used before, renew its code instead.

        Raises `PaymentStoreRefusal` (other_content, closed or paid).
        """
        existing = self.find_trade(trade.provider, trade.out_no)
        if existing is None:
            values = [getattr(trade, name) for name in SimulatedTrade.__slots__]
            self._db.execute("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            return trade
        if [getattr(existing, name) for name in _CONTENT] != [getattr(trade, name) for name in _CONTENT]:
            raise PaymentStoreRefusal("other_content", "this number belongs to a trade of other content")
        if existing.state != "waiting":
            code = "paid" if existing.state == "captured" else "closed"
            raise PaymentStoreRefusal(code, f"the trade is {existing.state}")
        key = (trade.code_expires_ms, trade.provider, trade.out_no)
        self._db.execute("UPDATE trades SET code_expires_ms = ? WHERE provider = ? AND out_no = ?", key)
        return replace(existing, code_expires_ms=trade.code_expires_ms)

    def pay(self, provider: str, out_no: str, now_ms: int, *, too_late: bool = False) -> SimulatedTrade:
        """Capture a trade as if the customer paid; `too_late` captures a closed or expired trade as well.

        Raises `PaymentStoreRefusal` (no_trade, closed, code_expired or paid).
        """
        trade = self._get_trade(provider, out_no)
        if trade.state == "captured":
            raise PaymentStoreRefusal("paid", "the trade is paid")
        if not too_late and (trade.state == "closed" or now_ms >= trade.expires_ms):
            raise PaymentStoreRefusal("closed", "the trade is closed or has expired")
        if not too_late and now_ms >= trade.code_expires_ms:
            raise PaymentStoreRefusal(
                "code_expired", "the code or the page has expired: the shop must request a new one"
            )
        self._db.execute(
            "UPDATE trades SET state = 'captured', paid_ms = ?, times_paid = times_paid + 1 "
            "WHERE provider = ? AND out_no = ? AND state <> 'captured'",
            (now_ms, provider, out_no),
        )
        return replace(trade, state="captured", paid_ms=now_ms, times_paid=trade.times_paid + 1)

    def close_trade(self, provider: str, out_no: str) -> SimulatedTrade:
        """Close a trade; a closed trade stays closed. Raises `PaymentStoreRefusal` (no_trade or paid)."""
        trade = self._get_trade(provider, out_no)
        if trade.state == "captured":
            raise PaymentStoreRefusal("paid", "the trade is paid")
        self._db.execute("UPDATE trades SET state = 'closed' WHERE provider = ? AND out_no = ?", (provider, out_no))
        return self._get_trade(provider, out_no)

    def refund(self, refund: SimulatedRefund) -> SimulatedRefund:
        """Store a refund and return it; the stored refund if its number and content were used before.

        Raises `PaymentStoreRefusal` (no_trade, not_paid, over_refunded or other_content).
        """
        existing = self.find_refund(refund.provider, refund.out_refund_no)
        if existing is not None:
            if (existing.amount, existing.out_no) != (refund.amount, refund.out_no):
                raise PaymentStoreRefusal("other_content", "this number belongs to another refund")
            return existing
        trade = self._get_trade(refund.provider, refund.out_no)
        if trade.state != "captured":
            raise PaymentStoreRefusal("not_paid", "the trade is not paid")
        if refund.amount <= 0 or self.sum_refunds(refund.provider, refund.out_no) + refund.amount > trade.amount:
            raise PaymentStoreRefusal("over_refunded", "more than was paid")
        values = (
            *(refund.provider, refund.out_refund_no, refund.out_no, refund.refund_no),
            *(refund.amount, refund.reason, refund.at_ms, refund.outcome, refund.due_ms),
        )
        self._db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        return refund

    def redirect_refund(self, refund: SimulatedRefund, now_ms: int, due_ms: int) -> SimulatedRefund:
        """Have an abnormal refund done at `due_ms`, to another bank account. Another refund stays as it is."""
        key = (now_ms, due_ms, refund.provider, refund.out_refund_no)
        self._db.execute(
            "UPDATE refunds SET outcome = 'done', at_ms = ?, due_ms = ? "
            "WHERE provider = ? AND out_refund_no = ? AND outcome = 'abnormal'",
            key,
        )
        redirected = self.find_refund(refund.provider, refund.out_refund_no)
        assert redirected is not None
        return redirected

    def find_refund(self, provider: str, out_refund_no: str) -> SimulatedRefund | None:
        row = self._db.execute(
            "SELECT * FROM refunds WHERE provider = ? AND out_refund_no = ?", (provider, out_refund_no)
        ).fetchone()
        return SimulatedRefund(*row) if row else None

    def sum_refunds(self, provider: str, out_no: str) -> int:
        """Return the refunded amount of a trade; a refund that is closed takes no money."""
        query = "SELECT coalesce(sum(amount), 0) FROM refunds WHERE provider = ? AND out_no = ? AND outcome <> 'closed'"
        return int(self._db.execute(query, (provider, out_no)).fetchone()[0])

    def list_paid_trades(self, provider: str, from_ms: int = 0, to_ms: int = 2**62) -> list[SimulatedTrade]:
        """Return the trades paid from `from_ms` until before `to_ms`, oldest first."""
        query = "SELECT * FROM trades WHERE provider = ? AND paid_ms >= ? AND paid_ms < ? ORDER BY paid_ms, out_no"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, from_ms, to_ms))]

    def list_refunds(self, provider: str, from_ms: int = 0, to_ms: int = 2**62) -> list[SimulatedRefund]:
        """Return the refunds made from `from_ms` until before `to_ms`, oldest first."""
        query = (
            "SELECT * FROM refunds WHERE provider = ? AND at_ms >= ? AND at_ms < ? AND outcome = 'done' "
            "ORDER BY at_ms, out_refund_no"
        )
        return [SimulatedRefund(*row) for row in self._db.execute(query, (provider, from_ms, to_ms))]

    def list_waiting(self, provider: str, limit: int) -> list[SimulatedTrade]:
        """Return trades that are neither paid nor closed, newest first; they may have expired."""
        query = "SELECT * FROM trades WHERE provider = ? AND state = 'waiting' ORDER BY created_ms DESC LIMIT ?"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, limit))]

    def list_last_paid(self, provider: str, limit: int) -> list[SimulatedTrade]:
        """Return paid trades, newest first."""
        query = "SELECT * FROM trades WHERE provider = ? AND paid_ms IS NOT NULL ORDER BY paid_ms DESC LIMIT ?"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, limit))]

    def totals(self, provider: str) -> dict[str, int]:
        """Return counts and sums over all time. Amounts of different currencies are added without conversion."""
        queries = {
            "captured": "SELECT count(*) FROM trades WHERE provider = ? AND state = 'captured'",
            "captured_amount": "SELECT sum(amount) FROM trades WHERE provider = ? AND state = 'captured'",
            "refunds": "SELECT count(*) FROM refunds WHERE provider = ? AND outcome = 'done'",
            "refunds_amount": "SELECT sum(amount) FROM refunds WHERE provider = ? AND outcome = 'done'",
            "paid_more_than_once": "SELECT count(*) FROM trades WHERE provider = ? AND times_paid > 1",
            "open_webhooks": "SELECT count(*) FROM webhooks WHERE provider = ? AND done = 0",
        }
        return {name: int(self._db.execute(query, (provider,)).fetchone()[0] or 0) for name, query in queries.items()}

    # Webhooks.

    def insert_webhook(self, due_webhook: DuePaymentWebhook, due_ms: int) -> None:
        """Store a webhook that is due at `due_ms`; an existing one stays unchanged."""
        self._db.execute(
            "INSERT OR IGNORE INTO webhooks (webhook_id, provider, out_no, out_refund_no, due_ms, defect) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(due_webhook.webhook_id, due_webhook.provider, due_webhook.out_no, due_webhook.out_refund_no),
                *(due_ms, due_webhook.defect),
            ),
        )

    def list_due_webhooks(self, now_ms: int, limit: int) -> list[DuePaymentWebhook]:
        query = (
            "SELECT webhook_id, provider, out_no, out_refund_no, defect, attempts FROM webhooks "
            "WHERE done = 0 AND due_ms <= ? ORDER BY due_ms LIMIT ?"
        )
        return [DuePaymentWebhook(*row) for row in self._db.execute(query, (now_ms, limit))]

    def mark_attempted(self, webhook_id: str, *, done: bool, retry_ms: int) -> None:
        """Record an attempt: the webhook is done, or due again at `retry_ms`."""
        self._db.execute(
            "UPDATE webhooks SET attempts = attempts + 1, done = ?, due_ms = ? WHERE webhook_id = ?",
            (int(done), retry_ms, webhook_id),
        )

    def find_next_due_ms(self, now_ms: int) -> int | None:
        """Return the earliest time after `now_ms` at which a webhook is due."""
        query = "SELECT min(due_ms) FROM webhooks WHERE done = 0 AND due_ms > ?"
        due_ms: int | None = self._db.execute(query, (now_ms,)).fetchone()[0]
        return due_ms

    def list_unannounced(self, provider: str) -> list[tuple[SimulatedTrade, SimulatedRefund | None]]:
        """Return payments and refunds without a webhook row; a kill before it was stored leaves such."""
        trades = (
            "SELECT * FROM trades t WHERE provider = ? AND paid_ms IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM webhooks w "
            "WHERE w.provider = t.provider AND w.out_no = t.out_no AND w.out_refund_no IS NULL)"
        )
        refunds = (
            "SELECT * FROM refunds r WHERE provider = ? AND NOT EXISTS (SELECT 1 FROM webhooks w "
            "WHERE w.provider = r.provider AND w.out_no = r.out_no AND w.out_refund_no = r.out_refund_no)"
        )
        unannounced_refunds = [SimulatedRefund(*row) for row in self._db.execute(refunds, (provider,))]
        return [
            *((SimulatedTrade(*row), None) for row in self._db.execute(trades, (provider,))),
            *((self._get_trade(provider, refund.out_no), refund) for refund in unannounced_refunds),
        ]

    def count_open_webhooks(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM webhooks WHERE done = 0").fetchone()[0])

    def _get_trade(self, provider: str, out_no: str) -> SimulatedTrade:
        trade = self.find_trade(provider, out_no)
        if trade is None:
            raise PaymentStoreRefusal("no_trade", "there is no such trade")
        return trade
