"""`floodgate coupon`: coupons of a sale, their numbers, and the codes that are issued to customers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commerce.coupons.model import (
    MAX_ISSUED_USERS,
    ChangedCoupon,
    Coupon,
    CouponInput,
    IssuedCode,
    IssueInput,
)
from commerce.kernel.errors import Invalid
from commerce.kernel.text_files import decode_text, read_file
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_json,
    print_line,
    print_table,
    print_text,
    run,
    run_change,
)
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Create, change and list coupons of a sale, issue them to customers.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]
Code = Annotated[str, typer.Argument(metavar="CODE", help="capital letters, digits and -, up to 40")]


@app.command()
def create(
    sale_id: SaleId,
    code: Code,
    promotion: Annotated[str, typer.Option(help="id of the coupon's promotion")],
    units: Annotated[int, typer.Option(help="how often it can be used in all")],
    per_user: Annotated[int, typer.Option(help="how often each customer can use it")] = 1,
    issued: Annotated[bool, typer.Option("--issued", help="only with codes of `floodgate coupon issue`")] = False,
    json: JsonOption = False,
) -> None:
    """Add a coupon to a sale, which may be open. A repeat changes nothing."""
    values = {
        "code": code,
        "promotion_id": promotion,
        "units": units,
        "limit_per_user": per_user,
        "issued": issued,
    }

    async def work() -> Coupon:
        coupon = parse_argument(values, CouponInput)
        async with open_cli_services() as shop:
            return await shop.coupons.create(sale_id, coupon, get_actor())

    _print(run_change(work()), json)


@app.command()
def change(
    sale_id: SaleId,
    code: Code,
    promotion: Annotated[str | None, typer.Option(help="id of another promotion")] = None,
    units: Annotated[int | None, typer.Option(help="new number in all; used ones cannot be taken away")] = None,
    per_user: Annotated[int | None, typer.Option(help="how often each customer can use it")] = None,
    issued: Annotated[bool | None, typer.Option("--issued/--public", help="with issued codes, or for all")] = None,
    reason: Annotated[str | None, typer.Option(help="recorded with another number")] = None,
    json: JsonOption = False,
) -> None:
    """Change terms and number of a coupon; what is left out stays. A repeat changes nothing."""
    values = {
        "promotion_id": promotion,
        "units": units,
        "limit_per_user": per_user,
        "issued": issued,
        "reason": reason,
    }

    async def work() -> Coupon:
        changed = {name: value for name, value in values.items() if value is not None}
        if not changed.keys() - {"reason"}:
            raise Invalid("there is nothing to change; give --promotion, --units, --per-user, --issued or --public")
        async with open_cli_services() as shop:
            return await shop.coupons.change(sale_id, code, parse_argument(changed, ChangedCoupon), get_actor())

    _print(run_change(work()), json)


@app.command("list")
def list_coupons(sale_id: SaleId, json: JsonOption = False) -> None:
    """List the coupons of a sale with how many are used and left."""

    async def work() -> list[Coupon]:
        async with open_cli_services() as shop:
            return await shop.coupons.list_coupons(sale_id)

    coupons = run(work())
    if json:
        print_json(coupons)
        return
    table = Table("code", "promotion", "for", "per user", "units", "used", "left", "created (UTC)")
    for coupon in coupons:
        table.add_row(
            coupon.code,
            coupon.promotion_id,
            "issued codes" if coupon.issued else "all",
            str(coupon.limit_per_user),
            str(coupon.units),
            _format_count(coupon.used),
            _format_count(coupon.left),
            format_time(coupon.created_at),
        )
    print_table(table, f"{sale_id} has no coupon: floodgate coupon create")


@app.command()
def issue(
    sale_id: SaleId,
    code: Code,
    users: Annotated[list[str] | None, typer.Argument(metavar="USER...", help="ids of customers")] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="a file with the id of a customer in each line"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print a code for each customer, with which only he can use the coupon.

    A repeat prints the same codes.
    """

    async def work() -> list[IssuedCode]:
        names = [*(users or ()), *(_read_users(file) if file else ())]
        if not names:
            raise Invalid("cannot issue the coupon to nobody; name customers, or give --file")
        issued: list[IssuedCode] = []
        async with open_cli_services() as shop:
            for first in range(0, len(names), MAX_ISSUED_USERS):
                wanted = parse_argument({"users": names[first : first + MAX_ISSUED_USERS]}, IssueInput)
                issued += await shop.coupons.issue(sale_id, code, wanted.users)
        return issued

    codes = run(work())
    if json:
        print_json(codes)
    else:
        print_text("\n".join(f"{issued.user_id}\t{issued.code}" for issued in codes))


def _read_users(file: Path) -> list[str]:
    try:
        lines = decode_text(read_file(file)).split("\n")
    except Invalid as error:
        raise Invalid(f"cannot read customers from {file}: {error.detail}") from None
    return [line.strip() for line in lines if line.strip()]


def _format_count(units: int | None) -> str:
    return "not known" if units is None else str(units)


def _print(coupon: Coupon, json: bool) -> None:
    if json:
        print_json(coupon)
        return
    state = "" if coupon.used is None else f", {coupon.used} used, {coupon.left} left"
    holders = "for issued codes" if coupon.issued else "for all"
    print_line(
        f"{coupon.code}, {holders}: {coupon.units} in all, {coupon.limit_per_user} per user{state}; "
        f"promotion {coupon.promotion_id}"
    )
