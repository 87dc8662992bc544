"""`floodgate screening`: the report of suspected customers, and clearings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from commerce.kernel.paging import Page
from commerce.kernel.types import Reason
from commerce.screening.model import POINTS, ScoreReason, ScreenedUser, ScreenedUserDetails, Signal
from commerce.screening.model import UserId as CustomerId
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    print_values,
    run,
    run_change,
)
from ops.commands.moment_arguments import format_clocks, read_moment
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Show suspected customers of a sale with the reasons, and clear them.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="the customer")]
ReasonOption = Annotated[str, typer.Option("--reason", help="recorded with your name")]
_USER_INVALID = "USER: not the id of a customer: letters, digits and ._@+- up to 64"
_REASON_INVALID = "--reason: give 1 to 200 characters, on one line, with a letter or digit"


@app.command()
def report(
    sale_id: SaleId,
    min_score: Annotated[int, typer.Option(min=1, max=100, help="only this score or more")] = 1,
    signal: Annotated[str | None, typer.Option(help="only address, device, phone, form, fast or rate")] = None,
    cleared: Annotated[bool | None, typer.Option("--cleared/--not-cleared", help="only those, or the others")] = None,
    top: Annotated[int, typer.Option(min=1, max=100_000, help="so many at most")] = 1_000,
    json: JsonOption = False,
) -> None:
    """List the scored customers of a sale with the reasons, highest score first."""

    async def work() -> Page[ScreenedUser]:
        message = f"--signal: choose one of {', '.join(POINTS)}"
        wanted: Signal | None = None if signal is None else parse_argument(signal, Signal, message)  # type: ignore[arg-type]
        async with open_cli_services() as shop:
            return await shop.screening.list_users(
                sale_id, None, top, min_score=min_score, signal=wanted, is_cleared=cleared
            )

    page = run(work())
    if json:
        print_json(page.items)
    else:
        _print_users(page.items, sale_id)
    if page.next is not None:
        print_detail(f"there are more; --top shows more than {top}")


def _print_users(users: list[ScreenedUser], sale_id: str) -> None:
    table = Table("user", "score", "reasons", "joins", "orders", "last request (UTC)", "cleared until (UTC)")
    for user in users:
        table.add_row(
            user.user_id,
            str(user.score),
            _describe(user.reasons),
            str(user.joins),
            str(user.orders),
            format_time(user.last_request_at),
            format_time(user.cleared_until),
        )
    print_table(table, f"nobody has a score in {sale_id}")


@app.command()
def show(sale_id: SaleId, user_id: UserId, json: JsonOption = False) -> None:
    """Show a customer's score with its reasons, and all decisions of staff."""

    async def work() -> ScreenedUserDetails:
        async with open_cli_services() as shop:
            return await shop.screening.get(sale_id, user_id)

    details = run(work())
    if json:
        print_json(details)
        return
    user = details.user
    print_values(
        (name.replace("_", " "), format_time(value) if isinstance(value, datetime) else value)
        for name in ScreenedUser.__struct_fields__
        if name != "reasons" and (value := getattr(user, name)) is not None
    )
    print_line(_describe(user.reasons) or "no signal")
    table = Table("at (UTC)", "by", "decision", "until (UTC)", "reason")
    for decision in details.decisions:
        table.add_row(
            format_time(decision.at), decision.actor, decision.action, format_time(decision.until), decision.reason
        )
    print_table(table, "no decisions of staff")


@app.command()
def clear(
    sale_id: SaleId,
    user_id: UserId,
    until: Annotated[
        datetime, typer.Option(parser=read_moment, metavar="TIME", help="until then the score leads to nothing")
    ],
    reason: ReasonOption,
) -> None:
    """Clear a customer: until a moment the score leads to nothing. Gateways follow within two seconds."""

    async def work() -> ScreenedUserDetails:
        text = parse_argument(reason, Reason, _REASON_INVALID)
        customer = parse_argument(user_id, CustomerId, _USER_INVALID)
        async with open_cli_services() as shop:
            return await shop.screening.clear(sale_id, customer, text, until, get_actor())

    user = run_change(work()).user
    print_line(f"{user.user_id} is cleared in {sale_id} until {format_clocks(user.cleared_until)}")


@app.command()
def revoke(sale_id: SaleId, user_id: UserId, reason: ReasonOption) -> None:
    """Revoke a clearing: the score counts again."""

    async def work() -> ScreenedUserDetails:
        text = parse_argument(reason, Reason, _REASON_INVALID)
        async with open_cli_services() as shop:
            return await shop.screening.revoke(sale_id, user_id, text, get_actor())

    user = run_change(work()).user
    print_line(f"{user.user_id} is no longer cleared in {sale_id}; the score is {user.score}")


def _describe(reasons: list[ScoreReason]) -> str:
    return ", ".join(f"{reason.signal} {reason.measured} (+{reason.points})" for reason in reasons)
