"""`floodgate promotion`: the promotions of a sale, and trying them with an order."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from commerce.kernel.money import format_money
from commerce.promotions.model import ChangedPromotion, Promotion, PromotionInput, PromotionTrial, TrialOrder
from gateway.decoding import decode_json
from ops.commands.console import (
    JsonOption,
    get_actor,
    list_all,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import format_clocks, read_moment
from ops.commands.safe_console import Table
from ops.services import open_cli_services

app = typer.Typer(help="Create, change, try and show the promotions of a sale.", no_args_is_help=True)
SaleId = Annotated[str, typer.Argument(metavar="SALE", help="the sale's id, such as double-11")]
PromotionId = Annotated[str, typer.Argument(metavar="PROMOTION", help="the promotion's id, such as 300-less-40")]
JsonFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.json")]
_PAGE_SIZE = 100


@app.command("list")
def list_promotions(sale_id: SaleId, json: JsonOption = False) -> None:
    """List the promotions of a sale with their rules and times."""

    async def work() -> list[Promotion]:
        async with open_cli_services() as shop:
            return await list_all(lambda cursor: shop.promotions.list_promotions(sale_id, cursor, _PAGE_SIZE))

    promotions = run(work())
    if json:
        print_json(promotions)
        return
    table = Table("promotion", "label", "class", "rule", "for", "begins", "ends", "state")
    for promotion in promotions:
        table.add_row(
            promotion.promotion_id,
            promotion.label,
            promotion.promotion_class,
            msgspec.json.encode(promotion.rule).decode(),
            "all" if promotion.skus is None else f"{len(promotion.skus)} SKUs",
            "" if promotion.starts_at is None else format_clocks(promotion.starts_at),
            "" if promotion.ends_at is None else format_clocks(promotion.ends_at),
            "enabled" if promotion.enabled else "disabled",
        )
    print_table(table, f"{sale_id} has no promotions: floodgate promotion create")


@app.command()
def create(sale_id: SaleId, file: JsonFile) -> None:
    """Create a promotion from a JSON file. To repeat it changes nothing.

    For example {"promotion_id": "300-less-40", "label": "300 less 40", "promotion_class": "order", "rule": {"kind":
    "stepped", "steps": [{"threshold": 30000, "amount": 4000}]}}. Amounts are minor units.
    """

    async def work() -> Promotion:
        new = decode_json(msgspec.json.Decoder(PromotionInput), file.read_bytes())
        async with open_cli_services() as shop:
            return await shop.promotions.create(sale_id, new, get_actor())

    promotion = run_change(work())
    print_line(f"{sale_id} has {promotion.promotion_id}: try it with `floodgate promotion try {sale_id} ORDER.json`")


@app.command()
def change(sale_id: SaleId, promotion_id: PromotionId, file: JsonFile) -> None:
    """Change a promotion, also while the sale is open.

    What the JSON file leaves out stays, and null removes a restriction.
    """

    async def work() -> Promotion:
        changes = decode_json(msgspec.json.Decoder(ChangedPromotion), file.read_bytes())
        async with open_cli_services() as shop:
            return await shop.promotions.change(sale_id, promotion_id, changes, get_actor())

    _print_state(run_change(work()))


@app.command()
def disable(sale_id: SaleId, promotion_id: PromotionId) -> None:
    """Disable a promotion, which takes nothing off then.

    `floodgate promotion change` enables it again.
    """

    async def work() -> Promotion:
        async with open_cli_services() as shop:
            return await shop.promotions.disable(sale_id, promotion_id, get_actor())

    _print_state(run_change(work()))


def _print_state(promotion: Promotion) -> None:
    print_line(f"{promotion.promotion_id} of {promotion.sale_id} is {'enabled' if promotion.enabled else 'disabled'}")


@app.command("try")
def try_order(
    sale_id: SaleId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="ORDER.json", help="an order's body")],
    coupon: Annotated[
        list[str] | None, typer.Option(metavar="PROMOTION", help="a promotion whose coupon he has")
    ] = None,
    new_customer: Annotated[bool, typer.Option("--new-customer", help="as a customer who has never ordered")] = False,
    at: Annotated[
        datetime | None, typer.Option(parser=read_moment, metavar="TIME", help="at another moment than now")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what an order would cost, and for each promotion what it takes off or the reason why not.

    The order needs lines only, as in {"lines": [{"sku": "MUG-01", "quantity": 2}]}. Nothing is ordered or reserved.
    """

    async def work() -> PromotionTrial:
        order = decode_json(msgspec.json.Decoder(TrialOrder), file.read_bytes())
        async with open_cli_services() as shop:
            return await shop.promotions.try_order(sale_id, order, coupon or (), new_customer, at)

    trial = run(work())
    if json:
        print_json(trial)
        return

    def money(amount: int) -> str:
        return format_money(amount, trial.currency)

    lines = Table("SKU", "quantity", "unit price", "discount", "amount")
    for line in trial.lines:
        lines.add_row(line.sku, str(line.quantity), money(line.unit_price), money(line.discount), money(line.amount))
    print_table(lines)
    print_line(f"{money(trial.subtotal)} less {money(trial.discount)} is {money(trial.total)}")
    reasons = Table("promotion", "label", "class", "result", "reason")
    for explanation in trial.explanations:
        reasons.add_row(
            explanation.promotion_id,
            explanation.label,
            explanation.promotion_class,
            explanation.code,
            explanation.message,
        )
    print_table(reasons, f"{sale_id} has no promotions")
