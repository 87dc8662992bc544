"""`floodgate store-credit`: grant and show store credit."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from commerce.kernel.money import Money, format_money
from commerce.payments.model import StoreCredit, StoreCreditGrant
from ops.commands.console import JsonOption, get_actor, parse_argument, print_json, print_line, run, run_change
from ops.commands.payments import parse_amount
from ops.services import open_cli_services

app = typer.Typer(help="Grant and show store credit.", no_args_is_help=True)
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="the customer's id")]
_UserId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]


@app.command()
def grant(
    user_id: UserArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="such as 2.55")],
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="ISO 4217, such as CNY")],
    key: Annotated[str, typer.Option(help="idempotency key of this grant: a repeat grants nothing more")],
) -> None:
    """Grant store credit to a customer, once per key."""

    async def work() -> StoreCredit:
        checked_id = parse_argument(user_id, _UserId)
        values = {"idempotency_key": key, "amount": parse_amount(amount, currency), "currency": currency}
        wanted = parse_argument(values, StoreCreditGrant)
        async with open_cli_services() as shop:
            return await shop.payments.grant_store_credit(
                checked_id, Money(wanted.amount, wanted.currency), wanted.idempotency_key, get_actor()
            )

    _print(run_change(work()))


@app.command()
def show(user_id: UserArgument, json: JsonOption = False) -> None:
    """Show a customer's store credit."""

    async def work() -> StoreCredit:
        async with open_cli_services() as shop:
            return await shop.payments.get_store_credit(user_id)

    credit = run(work())
    if json:
        print_json(credit)
    else:
        _print(credit)


def _print(credit: StoreCredit) -> None:
    balances = ", ".join(format_money(balance.amount, balance.currency) for balance in credit.balances)
    print_line(f"{credit.user_id}: {balances or 'no store credit'}")
