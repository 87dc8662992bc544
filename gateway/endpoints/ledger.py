"""Staff operations on the ledger: balances of accounts, held cash and its deposits."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web

from commerce.ledger.model import CashDeposit, Deposited, HeldCashList, TrialBalance
from commerce.ledger.service import Ledger
from gateway.operations import Call, Operation, Parameter, json_response


def _ledger(call: Call) -> Ledger:
    return Ledger(call.services.db, call.services.clock)


async def list_held_cash(call: Call) -> web.Response:
    """List who holds cash for the shop, how much and since when, the oldest first."""
    return json_response(HeldCashList(await _ledger(call).list_held_cash()))


async def deposit_cash(call: Call) -> web.Response:
    """Post cash that a carrier or a driver handed over, or that the shop took to the bank, once per key."""
    return json_response(await _ledger(call).deposit_cash(call.body, call.staff_actor))


async def read_trial_balance(call: Call) -> web.Response:
    """Add up all accounts, as of now or of the end of a month in China. Reads the whole ledger."""
    month, last_day = call.parameters["month"], None
    if month is not None:
        first_day = date.fromisoformat(f"{month}-01")
        last_day = first_day.replace(day=monthrange(first_day.year, first_day.month)[1])
    return json_response(await _ledger(call).read_trial_balance(last_day))


_MONTH = Parameter(
    name="month",
    location="query",
    type=Annotated[str, msgspec.Meta(pattern=r"^2[0-9]{3}-(0[1-9]|1[0-2])\Z", examples=["2026-11"])] | None,
    description="with entries up to the end of this month in China",
)
_staff = partial(Operation, tag="staff: ledger", access="support")

ADMIN = [
    _staff(
        method="GET",
        access="support_read",
        path="/v1/admin/cash",
        handler=list_held_cash,
        summary="List held cash",
        answers={200: ("cash by holder and currency", HeldCashList)},
        problems=(503,),
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/cash/deposits",
        handler=deposit_cash,
        summary="Deposit cash",
        answers={200: ("the deposit, and what its holder still has", Deposited)},
        problems=(409, 503),
        body=CashDeposit,
    ),
    _staff(
        method="GET",
        access="support_read",
        path="/v1/admin/accounts",
        handler=read_trial_balance,
        summary="Read the trial balance",
        answers={200: ("balances by account and currency", TrialBalance)},
        problems=(503,),
        parameters=(_MONTH,),
    ),
]
