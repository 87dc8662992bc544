"""The ledger for staff: balances of accounts, who holds cash, and its deposits."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, time, timedelta

from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import KeyReused
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection, Database
from commerce.ledger import store
from commerce.ledger.errors import CashNotHeld
from commerce.ledger.model import CashDeposit, Deposited, HeldCash, NewPosting, TrialBalance

_DAY = timedelta(days=1)


class Ledger:
    """Shows the ledger's balances, and posts cash that is handed over."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def read_trial_balance(self, last_day: date | None = None) -> TrialBalance:
        """Add up all accounts, with entries up to the end of a day in China, or all of them."""
        before = None if last_day is None else datetime.combine(last_day, time(), CHINA) + _DAY
        async with self._db.connection() as connection:
            items = await store.list_balances(connection, before)
        difference = Counter[str]()
        for item in items:
            difference[item.currency] += item.balance
        return TrialBalance(items, dict(difference))

    async def list_held_cash(self) -> list[HeldCash]:
        """List who holds cash, how much and since when, the oldest first."""
        async with self._db.connection() as connection:
            return await store.list_held_cash(connection, None)

    async def deposit_cash(self, deposit: CashDeposit, actor: str) -> Deposited:
        """Post cash that a holder handed over, once per key. The same again changes nothing.

        Raises `CashNotHeld` if the holder has not so much, and `KeyReused` if the key belongs to another deposit."""
        account, total = f"cash:{deposit.holder}", deposit.amount + deposit.fee + deposit.missing
        parts = {
            "cash:shop" if deposit.to == "shop" else "bank": deposit.amount,
            f"fees:{deposit.holder.removeprefix('carrier:')}": deposit.fee,
            "differences": deposit.missing,
            account: -total,
        }
        entries = {name: amount for name, amount in parts.items() if amount}
        posting = NewPosting(
            posting=f"deposit {deposit.idempotency_key}",
            order_id=None,
            currency=deposit.currency,
            entries=entries,
            actor=actor,
            reference=deposit.reference,
            reason=deposit.reason,
            booked_on=deposit.booked_on,
        )
        async with self._db.transaction() as connection:
            await store.lock_account(connection, account)  # two deposits at once must not share the same cash
            held = await _read_held(connection, account, deposit.currency)
            if await store.insert_postings(connection, [posting], from_ms(self._clock.now_ms())):
                if held.balance < total:
                    raise CashNotHeld(
                        f"cannot deposit {format_money(total, deposit.currency)}: {deposit.holder} has "
                        f"{format_money(max(held.balance, 0), deposit.currency)}; record what came "
                        "(`missing` below 0 is a surplus)"
                    )
            elif await store.get_entries(connection, posting.posting) != {
                (name, amount, deposit.currency) for name, amount in entries.items()
            }:
                raise KeyReused("the key was used for another deposit: send a new one")
            left = await _read_held(connection, account, deposit.currency)
        return Deposited(posting.posting, deposit.amount, left)


async def _read_held(connection: Connection, account: str, currency: str) -> HeldCash:
    for held in await store.list_held_cash(connection, account):
        if held.currency == currency:
            return held
    return HeldCash(account.removeprefix("cash:"), 0, currency, None)
