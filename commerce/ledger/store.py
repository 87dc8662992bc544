"""Rows of accounts, postings and their entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.ledger.model import AccountBalance, HeldCash, NewPosting

queries = load_queries(__package__)


async def insert_postings(connection: Connection, postings: Sequence[NewPosting], now: datetime) -> set[str]:
    """Insert those of the postings that are not posted yet, with their entries. Returns their names."""
    postings = sorted(postings, key=lambda posting: posting.posting)  # those of other transactions block in sequence
    entries = [
        (posting.posting, account, amount, posting.currency)
        for posting in postings
        for account, amount in posting.entries.items()
    ]
    assert all(sum(posting.entries.values()) == 0 for posting in postings)
    if not postings:
        return set()
    rows = await connection.fetch(
        queries.insert_postings,
        now,
        [posting.posting for posting in postings],
        [posting.order_id for posting in postings],
        [posting.actor for posting in postings],
        [posting.reference for posting in postings],
        [posting.reason for posting in postings],
        [posting.booked_on for posting in postings],
        *([entry[column] for entry in entries] for column in range(4)),
    )
    return {row["posting"] for row in rows}


async def get_entries(connection: Connection, posting: str) -> set[tuple[str, int, str]]:
    """Return a posting's entries as (account, minor units, currency)."""
    rows = await connection.fetch(queries.get_entries, posting)
    return {(row["account"], row["amount_minor"], row["currency"]) for row in rows}


async def lock_account(connection: Connection, account: str) -> bool:
    """Lock an account against other transactions that lock it. False if it does not exist."""
    return await connection.fetchval(queries.lock_account, account) is not None


async def list_held_cash(connection: Connection, account: str | None) -> list[HeldCash]:
    """List the cash of all holders, or that of one account, by holder and currency, the oldest first."""
    return [HeldCash(**row) for row in await connection.fetch(queries.list_held_cash, account)]


async def list_balances(connection: Connection, before: datetime | None) -> list[AccountBalance]:
    """Add up all entries, or those before a moment, by account and currency."""
    return [AccountBalance(**row) for row in await connection.fetch(queries.list_balances, before)]
