"""Cash that carriers, drivers and the shop hold: since when, and its deposits."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.kernel.errors import KeyReused
from commerce.ledger.errors import CashNotHeld
from commerce.ledger.model import CashDeposit, HeldCash
from commerce.shipping.model import Shipment
from ops.services import CliServices
from tests.support.shipping_shop import ShippingShop, tracking_event


async def collect(ship: ShippingShop, amount: int) -> UUID:
    """Have the carrier `cheap` collect cash with a shipment. Returns the order."""
    order_id, [shipment] = await ship.add_booked_order(cod=amount)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    return order_id


def make_deposit(key: str = "k", **values: Any) -> CashDeposit:
    defaults = {"idempotency_key": key, "holder": "carrier:cheap", "to": "bank", "amount": 100, "currency": "CNY"}
    return msgspec.convert(defaults | values, CashDeposit)


async def deposit(shop: CliServices, key: str = "k", **values: Any) -> HeldCash:
    return (await shop.ledger.deposit_cash(make_deposit(key, **values), "staff sam")).left


async def read_balances(shop: CliServices) -> dict[str, int]:
    return {item.account: item.balance for item in (await shop.ledger.read_trial_balance()).items if item.balance}


async def age_cash(ship: ShippingShop, order_id: UUID, days: int) -> datetime:
    """Date the cash of an order back. Returns when it was collected."""
    at = datetime.now(UTC) - timedelta(days=days)
    async with ship.shop.db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE ledger SET at = $2 WHERE order_id = $1", order_id, at)
    return at


async def test_cash_is_held_since_its_oldest_part(ship: ShippingShop) -> None:
    """The cash that was collected first is handed over first, so the rest is newer."""
    assert await ship.shop.ledger.list_held_cash() == []
    first, second, third = [await collect(ship, 300) for _ in range(3)]
    at = {order_id: await age_cash(ship, order_id, days) for order_id, days in ((first, 9), (second, 5), (third, 1))}
    assert await ship.shop.ledger.list_held_cash() == [HeldCash("carrier:cheap", 900, "CNY", at[first])]
    assert await deposit(ship.shop, amount=299) == HeldCash("carrier:cheap", 601, "CNY", at[first])
    assert await deposit(ship.shop, "l", amount=1) == HeldCash("carrier:cheap", 600, "CNY", at[second])
    assert await deposit(ship.shop, "m", amount=600) == HeldCash("carrier:cheap", 0, "CNY", None)
    assert await ship.shop.ledger.list_held_cash() == []
    assert await read_balances(ship.shop) == {"bank": 900, "orders": -900}


async def test_deposit_with_fee_and_missing_cash_empties_the_account(ship: ShippingShop) -> None:
    await collect(ship, 300)
    with pytest.raises(msgspec.ValidationError, match="say in `reason`"):
        make_deposit(missing=5)
    values = {"amount": 280, "fee": 15, "missing": 5, "reason": "one note was forged", "reference": "R-1"}
    left = await deposit(ship.shop, **values, to="shop", booked_on="2026-11-12")
    assert (left.balance, left.oldest_at) == (0, None)
    assert await read_balances(ship.shop) == {"cash:shop": 280, "differences": 5, "fees:cheap": 15, "orders": -300}
    await deposit(ship.shop, "l", holder="shop", amount=290, missing=-10, reason="a note was found")
    assert await read_balances(ship.shop) == {"bank": 290, "differences": -5, "fees:cheap": 15, "orders": -300}
    [row] = await ship.fetch_rows("SELECT * FROM postings WHERE posting = 'deposit k'")
    assert (row["kind"], row["actor"], row["reference"]) == ("cash_deposit", "staff sam", "R-1")
    assert (row["booked_on"], row["reason"]) == (date(2026, 11, 12), "one note was forged")


async def test_deposit_of_more_than_is_held_is_refused(ship: ShippingShop) -> None:
    await collect(ship, 300)
    for values in ({"amount": 301}, {"amount": 300, "fee": 1}, {"holder": "driver:V1"}, {"currency": "GBP"}):
        with pytest.raises(CashNotHeld, match="record what came"):
            await deposit(ship.shop, **values)
    assert await ship.fetch_value("SELECT count(*) FROM postings WHERE kind = 'cash_deposit'") == 0


async def test_repeated_deposit_is_posted_once(ship: ShippingShop) -> None:
    await collect(ship, 300)
    for _ in range(2):
        assert (await deposit(ship.shop, amount=200)).balance == 100
    with pytest.raises(KeyReused, match="another deposit"):
        await deposit(ship.shop, amount=100)
    assert (await deposit(ship.shop, amount=200)).balance == 100


async def test_racing_deposits_never_exceed_held_cash(ship: ShippingShop) -> None:
    await collect(ship, 300)
    keys = [f"k{number}" for number in range(10)]
    results = await asyncio.gather(*(deposit(ship.shop, key) for key in keys), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 7
    assert all(isinstance(result, CashNotHeld) for result in refused), refused
    assert await read_balances(ship.shop) == {"bank": 300, "orders": -300}


async def test_driver_of_vehicle_holds_the_cash(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(cod=300)
    await deliver_by_vehicle(ship, shipment)
    assert await read_balances(ship.shop) == {"cash:driver:V1": 300, "orders": -300}
    owner = await ship.fetch_value("SELECT owner FROM accounts WHERE account = 'cash:driver:V1'")
    assert owner == "V1"
    assert await ship.fetch_value("SELECT order_id FROM postings WHERE kind = 'cash_collected'") == order_id


async def deliver_by_vehicle(ship: ShippingShop, shipment: Shipment) -> None:
    async with ship.shop.db.transaction() as connection:
        await ship.shipping.apply_tracking_events(
            connection,
            shipment.shipment_id,
            [tracking_event("delivered", -1)],
            "fleet",
            "vehicle V1",
            datetime.now(UTC),
        )


async def test_trial_balance_ends_with_its_day(ship: ShippingShop) -> None:
    order_id = await collect(ship, 300)
    await age_cash(ship, order_id, 40)
    await collect(ship, 100)
    ledger = ship.shop.ledger
    now = await ledger.read_trial_balance()
    assert {item.account: (item.kind, item.balance) for item in now.items if item.balance} == {
        "cash:carrier:cheap": ("asset", 400),
        "orders": ("liability", -400),
    }
    before = await ledger.read_trial_balance((datetime.now(UTC) - timedelta(days=10)).date())
    assert {item.account: item.balance for item in before.items if item.balance} == {
        "cash:carrier:cheap": 300,
        "orders": -300,
    }
    assert now.difference == before.difference == {"CNY": 0}


async def test_entries_of_an_older_version_get_their_posting_and_account(shop: CliServices) -> None:
    async with shop.db.transaction() as connection:
        await connection.execute(
            "INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES "
            "('capture 1', 'cash:driver:V9', NULL, 5, 'CNY', now()), ('capture 1', 'orders', NULL, -5, 'CNY', now())"
        )
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT kind FROM postings WHERE posting = 'capture 1'") == "capture"
        row = await connection.fetchrow("SELECT kind, owner FROM accounts WHERE account = 'cash:driver:V9'")
        assert tuple(row) == ("asset", "V9")
        for statement in ("UPDATE postings SET actor = 'x'", "DELETE FROM postings", "TRUNCATE postings"):
            with pytest.raises(Exception, match="only ever added to"):
                await connection.execute(statement)


async def test_posting_may_take_several_statements_of_a_transaction(shop: CliServices) -> None:
    insert = "INSERT INTO ledger (posting, account, amount_minor, currency, at) VALUES ('fee 1', $1, $2, 'CNY', now())"
    async with shop.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(insert, "bank", 5)
        await connection.execute(insert, "differences", -4)
        with pytest.raises(Exception, match="posting fee 1 does not balance"):
            await transaction.commit()
        async with connection.transaction():
            await connection.execute(insert, "bank", 5)
            await connection.execute(insert, "differences", -5)
        with pytest.raises(Exception, match="posting fee 1 does not balance"):
            await connection.execute(insert, "cash:shop", 1)
        assert await connection.fetchval("SELECT count(*) FROM ledger_unbalanced") == 0
        assert await connection.fetchval("SELECT kind FROM postings WHERE posting = 'fee 1'") == "fee"
