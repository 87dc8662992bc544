"""`floodgate catalog price`: list prices, now or from a time on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from commerce.catalog.model import PlanEnd, PlannedPrice, PriceChange, PriceInput, Variant
from commerce.kernel.money import format_money
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    list_all,
    parse_argument,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_moment
from ops.commands.safe_console import Table
from ops.commands.variants import parse_price
from ops.services import open_cli_services

app = typer.Typer(help="Set and plan list prices, and show their history.", no_args_is_help=True)
_PAGE_SIZE = 100


@app.command("set")
def set_price(
    sku: str,
    price: Annotated[str, typer.Argument(help="the list price in the variant's currency, as 2.55")],
    reason: Annotated[str, typer.Option(help="the reason, for the history")],
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=read_moment,
            metavar="TIME",
            help="from when on, by the shop's clock: 2026-11-11T00:00, or with +08:00",
        ),
    ] = None,
) -> None:
    """Set a list price now, or at a time. Prices in existing sales stay as they are."""

    async def work() -> Variant | PlannedPrice:
        async with open_cli_services() as shop:
            currency = (await shop.catalog.get(sku)).currency
            values = {"price": parse_price(price, currency), "currency": currency, "starts_at": at, "reason": reason}
            return await shop.prices.set_price(sku, parse_argument(values, PriceInput), get_actor())

    result = run_change(work())
    amount = format_money(result.price, result.currency)
    if isinstance(result, PlannedPrice):
        print_line(f"{sku} costs {amount} from {format_time(result.starts_at)} UTC on: plan {result.plan_id}")
    else:
        print_line(f"{sku} costs {amount}")


@app.command("list")
def list_prices(sku: str, json: JsonOption = False) -> None:
    """List the list prices that a variant has had, newest first."""

    async def work() -> list[PriceChange]:
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.prices.list_changes(sku, None if cursor is None else int(cursor), _PAGE_SIZE)
            )

    changes = run(work())
    if json:
        print_json(changes)
        return
    table = Table("price", "since (UTC)", "by", "reason", "plan")
    for change in changes:
        table.add_row(
            *(format_money(change.price, change.currency), format_time(change.at), change.actor, change.reason),
            "" if change.plan_id is None else str(change.plan_id),
        )
    print_table(table)


@app.command("planned")
def list_planned(sku: str, json: JsonOption = False) -> None:
    """List prices that were planned for a variant, and how each plan ended, newest first."""

    async def work() -> list[PlannedPrice]:
        async with open_cli_services() as shop:
            return await list_all(
                lambda cursor: shop.prices.list_plans(sku, None if cursor is None else UUID(cursor), _PAGE_SIZE)
            )

    plans = run(work())
    if json:
        print_json(plans)
        return
    table = Table("price", "from (UTC)", "status", "plan", "by", "reason", "ended (UTC)", "ended by", "end reason")
    for plan in plans:
        table.add_row(
            *(format_money(plan.price, plan.currency), format_time(plan.starts_at), plan.status, str(plan.plan_id)),
            *(plan.actor, plan.reason, format_time(plan.ended_at), plan.ended_by or "", plan.end_reason or ""),
        )
    print_table(table, f"no price of {sku} was ever planned")


@app.command()
def cancel(
    plan_id: Annotated[UUID, typer.Argument(metavar="PLAN", help="the id of the planned price")],
    reason: Annotated[str, typer.Option(help="the reason, for the history")],
) -> None:
    """Cancel a planned price before its time."""

    async def work() -> PlannedPrice:
        end = parse_argument({"reason": reason}, PlanEnd)
        async with open_cli_services() as shop:
            return await shop.prices.cancel_plan(plan_id, end.reason, get_actor())

    plan = run_change(work())
    print_line(
        f"{plan.sku} does not cost {format_money(plan.price, plan.currency)} from {format_time(plan.starts_at)} UTC"
    )
