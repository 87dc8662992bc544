"""Posts what only a provider's statements know: its fees, and payouts to the bank. Each once.

Captures and refunds are in the ledger already; the comparison with the statement is `reconciliation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection, Database
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.payments import store
from commerce.payments.fund_lines import Payout
from commerce.payments.provider_port import StatementLine
from commerce.payments.reconciliation import ReconciliationReport

_POSTINGS_PER_TRANSACTION = 1_000


class PostedStatement(NamedTuple):
    """Numbers of new and of earlier postings, the new ones' sums, and what was not posted."""

    new: int
    earlier: int
    sums: dict[str, int]
    problems: list[str]


class StatementPostings:
    """Posts fees and payouts of statements."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def post_fees(
        self,
        method: str,
        day: date,
        statement: Sequence[StatementLine | str],
        report: ReconciliationReport,
        actor: str,
    ) -> PostedStatement:
        """Post the fees on a statement's lines that agree with our records, each movement's once.

        `report` is that of the comparison with our records. Fees on lines with a difference are not posted: repeat it
        when the difference is resolved."""
        differing = {difference.key for difference in report.differences}
        problems, postings = list[str](), list[NewPosting]()
        lines = [line for line in statement if isinstance(line, StatementLine) and line.fee]
        agreeing = [line for line in lines if (line.payment_id, line.refund_id) not in differing]
        if skipped := len(lines) - len(agreeing):
            problems.append(f"{skipped} fees on lines that differ from our records are not posted")
        async with self._db.connection() as connection:
            payments = await store.get_payments(connection, sorted({line.payment_id for line in agreeing}))
        for line in agreeing:
            subject = line.refund_id or line.payment_id
            if isinstance(line.fee, str):
                problems.append(f"{subject}: {line.fee}")
                continue
            posting = NewPosting(
                posting=f"fee {method} {subject}",
                order_id=payments[line.payment_id].order_id,
                currency=line.amount.currency,
                entries={f"fees:{method}": line.fee, f"provider:{method}": -line.fee},
                actor=actor,
                reference=line.transaction_id,
                booked_on=day,
            )
            postings.append(posting)
        return await self._post(postings, problems, f"fees:{method}")

    async def post_payouts(self, method: str, payouts: Sequence[Payout | str], actor: str) -> PostedStatement:
        """Post a provider's payouts to the bank, each of its numbers once."""
        postings = [
            NewPosting(
                posting=f"payout {method} {payout.number}",
                order_id=None,
                currency=payout.amount.currency,
                entries={"bank": payout.amount.amount, f"provider:{method}": -payout.amount.amount},
                actor=actor,
                reference=payout.number,
                booked_on=payout.paid_on,
            )
            for payout in payouts
            if isinstance(payout, Payout)
        ]
        return await self._post(postings, [payout for payout in payouts if isinstance(payout, str)], "bank")

    async def _post(self, postings: Sequence[NewPosting], problems: list[str], account: str) -> PostedStatement:
        """Insert postings, and add to the problems those that were posted before with another amount."""
        now, new, sums = from_ms(self._clock.now_ms()), 0, dict[str, int]()
        for first in range(0, len(postings), _POSTINGS_PER_TRANSACTION):
            part = postings[first : first + _POSTINGS_PER_TRANSACTION]
            async with self._db.transaction() as connection:
                inserted = await _insert(connection, part, now, problems)
            new += len(inserted)
            for posting in part:
                if posting.posting in inserted:
                    sums[posting.currency] = sums.get(posting.currency, 0) + posting.entries[account]
        return PostedStatement(new, len(postings) - new, sums, problems)


async def _insert(
    connection: Connection, postings: Sequence[NewPosting], now: datetime, problems: list[str]
) -> set[str]:
    inserted = await ledger.insert_postings(connection, postings, now)
    for posting in postings:
        if posting.posting not in inserted:
            entries = await ledger.get_entries(connection, posting.posting)
            if entries != {(account, amount, posting.currency) for account, amount in posting.entries.items()}:
                amount = format_money(max(posting.entries.values()), posting.currency)
                problems.append(f"{posting.posting} was posted before with another amount than {amount}")
    return inserted
