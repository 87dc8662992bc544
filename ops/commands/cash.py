"""`floodgate cash`: who holds cash, and its deposits."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from commerce.kernel.money import format_money
from commerce.ledger.model import CashDeposit, Deposited, HeldCash, HeldCashList
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_day
from ops.commands.payments import format_signed, parse_amount
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Show who holds cash, and record its deposits.", no_args_is_help=True)


@app.command()
def balances(json: JsonOption = False) -> None:
    """Show who holds cash for the shop, how much and since when, the oldest first."""

    async def work() -> list[HeldCash]:
        async with open_cli_services() as shop:
            return await shop.ledger.list_held_cash()

    items = run(work())
    if json:
        print_json(HeldCashList(items))
        return
    table = Table("holder", "balance", "oldest (UTC)")
    for held in items:
        table.add_row(held.holder, format_signed(held.balance, held.currency), format_time(held.oldest_at))
    print_table(table, "nobody holds cash")


@app.command()
def deposit(
    holder: Annotated[str, typer.Argument(metavar="HOLDER", help="shop, carrier:NAME or driver:VEHICLE")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="what arrives, such as 1500.00")],
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="ISO 4217, such as CNY")],
    key: Annotated[str, typer.Option(help="idempotency key of this deposit: a repeat posts nothing more")],
    to: Annotated[str, typer.Option(help="shop or bank")] = "bank",
    fee: Annotated[str, typer.Option(help="what the carrier keeps for its service")] = "0",
    missing: Annotated[str, typer.Option(help="what should have come and did not; -5.00 is a surplus")] = "0",
    reference: Annotated[str | None, typer.Option(help="number of the carrier or the bank")] = None,
    reason: Annotated[str | None, typer.Option(help="why cash is missing")] = None,
    booked_on: Annotated[
        date | None, typer.Option("--date", parser=read_day, metavar="YYYY-MM-DD", help="day of the carrier or bank")
    ] = None,
) -> None:
    """Record cash that a carrier or driver handed over, or that the shop took to the bank, once per key."""

    async def work() -> Deposited:
        values = {
            "idempotency_key": key,
            "holder": holder,
            "to": to,
            "amount": parse_amount(amount, currency),
            "currency": currency,
            "fee": parse_amount(fee, currency),
            "missing": parse_amount(missing.removeprefix("-"), currency) * (-1 if missing.startswith("-") else 1),
            "reference": reference,
            "reason": reason,
            "booked_on": booked_on,
        }
        wanted = parse_argument(values, CashDeposit)
        async with open_cli_services() as shop:
            return await shop.ledger.deposit_cash(wanted, get_actor())

    done = run_change(work())
    left = format_signed(done.left.balance, done.left.currency)
    print_line(f"{format_money(done.deposited, currency)} of {holder} are deposited; {left} are left")
