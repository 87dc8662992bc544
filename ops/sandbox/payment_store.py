"""The sandbox's own books: trades and refunds as a provider keeps them. In SQLite, so that a kill loses nothing.

Amounts are minor units; numbers are the merchant's (`out_no`, a payment's id as 32 hexadecimal digits) and the
provider's own (`trade_no`, `refund_no`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    provider TEXT NOT NULL, out_no TEXT NOT NULL, trade_no TEXT NOT NULL UNIQUE, amount INTEGER NOT NULL,
    currency TEXT NOT NULL, subject TEXT NOT NULL, scene TEXT NOT NULL, payer TEXT NOT NULL, notify_url TEXT NOT NULL,
    state TEXT NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, paid_ms INTEGER,
    times_paid INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (provider, out_no));
CREATE TABLE IF NOT EXISTS refunds (
    provider TEXT NOT NULL, out_refund_no TEXT NOT NULL, out_no TEXT NOT NULL, refund_no TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (provider, out_refund_no));
CREATE TABLE IF NOT EXISTS notices (
    notice_id TEXT PRIMARY KEY, provider TEXT NOT NULL, out_no TEXT NOT NULL, out_refund_no TEXT,
    due_ms INTEGER NOT NULL, wrong TEXT, attempts INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS notices_due ON notices (due_ms) WHERE done = 0;
CREATE INDEX IF NOT EXISTS notices_about ON notices (provider, out_no);
CREATE INDEX IF NOT EXISTS trades_waiting ON trades (provider, created_ms) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS trades_paid ON trades (provider, paid_ms) WHERE paid_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS refunds_of ON refunds (provider, out_no);
"""


class PaymentStoreRefusal(Exception):
    """The provider says no. `code` is one of: no_trade, not_paid, closed, paid, over_refunded, other_content."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class SimulatedTrade:
    """What a merchant asked for. `state` is waiting, captured or closed; `scene` as the merchant's adapter has it."""

    provider: str
    out_no: str
    trade_no: str
    amount: int
    currency: str
    subject: str
    scene: str
    payer: str
    notify_url: str
    state: str
    created_ms: int
    expires_ms: int
    paid_ms: int | None = None
    times_paid: int = 0


@dataclass(frozen=True, slots=True)
class SimulatedRefund:
    provider: str
    out_refund_no: str
    out_no: str
    refund_no: str
    amount: int
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A callback to be sent; `wrong` says what is to be wrong with it: signature, amount, or None."""

    notice_id: str
    provider: str
    out_no: str
    out_refund_no: str | None
    wrong: str | None
    attempts: int


class PaymentStore:
    """One provider's or several providers' books. Each method is one transaction."""

    def __init__(self, file: Path | str = ":memory:") -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _SCHEMA)

    def close(self) -> None:
        self._db.close()

    def trade(self, provider: str, out_no: str) -> SimulatedTrade | None:
        row = self._db.execute("SELECT * FROM trades WHERE provider = ? AND out_no = ?", (provider, out_no)).fetchone()
        return SimulatedTrade(*row) if row else None

    def open_trade(self, trade: SimulatedTrade) -> SimulatedTrade:
        """Enter a trade; again with the same content gives what is there. Raises other_content, closed or paid."""
        known = self.trade(trade.provider, trade.out_no)
        if known is None:
            self._db.execute("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(trade))
            return trade
        if (known.amount, known.currency) != (trade.amount, trade.currency):
            raise PaymentStoreRefusal("other_content", "this number stands for a trade of another amount")
        if known.state != "waiting":
            raise PaymentStoreRefusal("paid" if known.state == "captured" else "closed", f"the trade is {known.state}")
        return known

    def pay(self, provider: str, out_no: str, now_ms: int, *, too_late: bool = False) -> SimulatedTrade:
        """The customer pays; too late where the money was on its way when the trade was closed. Raises no_trade, closed
        (or expired) or paid."""
        trade = self._need(provider, out_no)
        if trade.state == "captured":
            raise PaymentStoreRefusal("paid", "the trade is paid")
        if not too_late and (trade.state == "closed" or now_ms >= trade.expires_ms):
            raise PaymentStoreRefusal("closed", "the trade is closed or has expired")
        self._db.execute(
            "UPDATE trades SET state = 'captured', paid_ms = ?, times_paid = times_paid + 1 "
            "WHERE provider = ? AND out_no = ? AND state <> 'captured'",
            (now_ms, provider, out_no),
        )
        return self._need(provider, out_no)

    def close_trade(self, provider: str, out_no: str) -> SimulatedTrade:
        """The merchant closes. Raises no_trade or paid; a trade that is closed stays so."""
        trade = self._need(provider, out_no)
        if trade.state == "captured":
            raise PaymentStoreRefusal("paid", "the trade is paid")
        self._db.execute("UPDATE trades SET state = 'closed' WHERE provider = ? AND out_no = ?", (provider, out_no))
        return self._need(provider, out_no)

    def refund(self, refund: SimulatedRefund) -> SimulatedRefund:
        """Give money back; again under the same number gives the first. Raises no_trade, not_paid, over_refunded,
        other_content."""
        known = self.refund_of(refund.provider, refund.out_refund_no)
        if known is not None:
            if (known.amount, known.out_no) != (refund.amount, refund.out_no):
                raise PaymentStoreRefusal("other_content", "this number stands for another refund")
            return known
        trade = self._need(refund.provider, refund.out_no)
        if trade.state != "captured":
            raise PaymentStoreRefusal("not_paid", "the trade is not paid")
        if refund.amount <= 0 or self.refunded(refund.provider, refund.out_no) + refund.amount > trade.amount:
            raise PaymentStoreRefusal("over_refunded", "more than was paid")
        values = (
            *(refund.provider, refund.out_refund_no, refund.out_no, refund.refund_no),
            *(refund.amount, refund.reason, refund.at_ms),
        )
        self._db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        return refund

    def refund_of(self, provider: str, out_refund_no: str) -> SimulatedRefund | None:
        found = self._db.execute(
            "SELECT * FROM refunds WHERE provider = ? AND out_refund_no = ?", (provider, out_refund_no)
        ).fetchone()
        return SimulatedRefund(*found) if found else None

    def refunded(self, provider: str, out_no: str) -> int:
        """How much of a trade has gone back."""
        query = "SELECT coalesce(sum(amount), 0) FROM refunds WHERE provider = ? AND out_no = ?"
        return int(self._db.execute(query, (provider, out_no)).fetchone()[0])

    def trades(self, provider: str, from_ms: int = 0, to_ms: int = 2**62) -> list[SimulatedTrade]:
        """Trades that were paid in a stretch of time."""
        query = "SELECT * FROM trades WHERE provider = ? AND paid_ms >= ? AND paid_ms < ? ORDER BY paid_ms, out_no"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, from_ms, to_ms))]

    def refunds(self, provider: str, from_ms: int = 0, to_ms: int = 2**62) -> list[SimulatedRefund]:
        query = "SELECT * FROM refunds WHERE provider = ? AND at_ms >= ? AND at_ms < ? ORDER BY at_ms, out_refund_no"
        return [SimulatedRefund(*row) for row in self._db.execute(query, (provider, from_ms, to_ms))]

    def waiting(self, provider: str, limit: int) -> list[SimulatedTrade]:
        """Trades that can still be paid, newest first."""
        query = "SELECT * FROM trades WHERE provider = ? AND state = 'waiting' ORDER BY created_ms DESC LIMIT ?"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, limit))]

    def last_paid(self, provider: str, limit: int) -> list[SimulatedTrade]:
        """Trades that were paid, newest first."""
        query = "SELECT * FROM trades WHERE provider = ? AND paid_ms IS NOT NULL ORDER BY paid_ms DESC LIMIT ?"
        return [SimulatedTrade(*row) for row in self._db.execute(query, (provider, limit))]

    def totals(self, provider: str) -> dict[str, int]:
        """Sums over all time: how many and how much, trades paid more than once, callbacks that are still to be sent.
        Amounts of different currencies are added as they are."""
        sums = {
            "captured": "SELECT count(*) FROM trades WHERE provider = ? AND state = 'captured'",
            "captured_amount": "SELECT sum(amount) FROM trades WHERE provider = ? AND state = 'captured'",
            "refunds": "SELECT count(*) FROM refunds WHERE provider = ?",
            "refunds_amount": "SELECT sum(amount) FROM refunds WHERE provider = ?",
            "paid_more_than_once": "SELECT count(*) FROM trades WHERE provider = ? AND times_paid > 1",
            "open_notices": "SELECT count(*) FROM notices WHERE provider = ? AND done = 0",
        }
        return {name: int(self._db.execute(query, (provider,)).fetchone()[0] or 0) for name, query in sums.items()}

    # Callbacks that are to be sent.

    def notify(self, notice: DueNotice, due_ms: int) -> None:
        """Enter a callback; one that is there already stays as it is."""
        self._db.execute(
            "INSERT OR IGNORE INTO notices (notice_id, provider, out_no, out_refund_no, due_ms, wrong) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (notice.notice_id, notice.provider, notice.out_no, notice.out_refund_no, due_ms, notice.wrong),
        )

    def due(self, now_ms: int, limit: int) -> list[DueNotice]:
        query = (
            "SELECT notice_id, provider, out_no, out_refund_no, wrong, attempts FROM notices "
            "WHERE done = 0 AND due_ms <= ? ORDER BY due_ms LIMIT ?"
        )
        return [DueNotice(*row) for row in self._db.execute(query, (now_ms, limit))]

    def mark_attempted(self, notice_id: str, *, done: bool, again_ms: int) -> None:
        """A callback was tried: it is done with, or due again."""
        self._db.execute(
            "UPDATE notices SET attempts = attempts + 1, done = ?, due_ms = ? WHERE notice_id = ?",
            (int(done), again_ms, notice_id),
        )

    def next_due_ms(self, now_ms: int) -> int | None:
        """When the next callback will be due that is not due yet."""
        query = "SELECT min(due_ms) FROM notices WHERE done = 0 AND due_ms > ?"
        found: int | None = self._db.execute(query, (now_ms,)).fetchone()[0]
        return found

    def unannounced(self, provider: str) -> list[tuple[SimulatedTrade, SimulatedRefund | None]]:
        """What was paid or refunded, and a kill came before its callback was entered."""
        trades = (
            "SELECT * FROM trades t WHERE provider = ? AND paid_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM notices n "
            "WHERE n.provider = t.provider AND n.out_no = t.out_no AND n.out_refund_no IS NULL)"
        )
        refunds = (
            "SELECT * FROM refunds r WHERE provider = ? AND NOT EXISTS (SELECT 1 FROM notices n "
            "WHERE n.provider = r.provider AND n.out_no = r.out_no AND n.out_refund_no = r.out_refund_no)"
        )
        made = [SimulatedRefund(*row) for row in self._db.execute(refunds, (provider,))]
        return [
            *((SimulatedTrade(*row), None) for row in self._db.execute(trades, (provider,))),
            *((self._need(provider, refund.out_no), refund) for refund in made),
        ]

    def open_notices(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM notices WHERE done = 0").fetchone()[0])

    def _need(self, provider: str, out_no: str) -> SimulatedTrade:
        trade = self.trade(provider, out_no)
        if trade is None:
            raise PaymentStoreRefusal("no_trade", "there is no such trade")
        return trade


def _row(trade: SimulatedTrade) -> Sequence[object]:
    return [getattr(trade, name) for name in SimulatedTrade.__slots__]
